//! Cgroups of a bed: one cgroup in every hierarchy that the host has mounted, v1, hybrid or v2.
//!
//! The bed's daemons live in the child [`DAEMONS`] of it, for on v2 a cgroup with processes of its own
//! can't hand controllers to its children.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where every distribution mounts them.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup of the daemons and of the commands that tests run, inside the bed's.
pub(crate) const DAEMONS: &str = "bed";

/// Those that containers are limited by.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "io", "memory", "pids"];

/// Names of bed's cgroups begin so; the supervisor's pid follows.
const PREFIX: &str = "lighter-testbed-";

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mounted_at: PathBuf,
    /// The cgroup that shows as the root of this mount.
    root: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    V2,
    /// Controllers, or `name=systemd`, as `/proc/PID/cgroup` and the mount options spell them.
    V1(Vec<String>),
}

impl Hierarchy {
    /// The hierarchies under [`ROOT`], from the text of a `mountinfo` file (proc_pid_mountinfo(5)).
    fn parse_all(mountinfo: &str) -> Vec<Hierarchy> {
        mountinfo.lines().filter_map(Hierarchy::parse).collect()
    }

    fn parse(line: &str) -> Option<Hierarchy> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, mounted_at) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let kind = match filesystem.next()? {
            "cgroup2" => Kind::V2,
            "cgroup" => {
                let not_controllers = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode"];
                let options = filesystem.nth(1)?.split(',');
                let of_controllers =
                    options.filter(|o| !not_controllers.contains(o) && !o.starts_with("release_agent="));
                Kind::V1(of_controllers.map(str::to_owned).collect())
            }
            _ => return None,
        };
        mounted_at.starts_with(ROOT).then(|| Hierarchy { mounted_at: mounted_at.into(), root: root.into(), kind })
    }

    /// The cgroup of a process in this hierarchy, from the text of its `/proc/PID/cgroup`.
    fn cgroup_of(&self, proc_cgroup: &str) -> Option<PathBuf> {
        let path = proc_cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let this = match &self.kind {
                Kind::V2 => controllers.is_empty(),
                Kind::V1(own) => !controllers.is_empty() && controllers.split(',').all(|c| own.iter().any(|o| o == c)),
            };
            this.then(|| PathBuf::from(path))
        })?;
        Some(self.mounted_at.join(path.strip_prefix(&self.root).ok()?))
    }

    /// A hybrid host mounts v2 too, but has its controllers on v1.
    fn has_controllers_of_v2(&self) -> bool {
        self.kind == Kind::V2 && self.mounted_at == Path::new(ROOT)
    }

    /// Below which cgroup a bed's goes. On v1 below our own, whose limits it keeps; on v2 that one has
    /// processes, hence can't hand out controllers: below the root.
    fn parent(&self, proc_cgroup: &str) -> PathBuf {
        match self.kind {
            Kind::V2 => self.mounted_at.clone(),
            Kind::V1(_) => self.cgroup_of(proc_cgroup).unwrap_or_else(|| self.mounted_at.clone()),
        }
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let found = Hierarchy::parse_all(&fs::read_to_string("/proc/self/mountinfo").context("read own mountinfo")?);
    ensure!(!found.is_empty(), "no cgroups are mounted under {ROOT}");
    Ok(found)
}

/// A bed's cgroups on the host, removed with all that is in them by [`Cgroups::remove`].
pub(crate) struct Cgroups {
    folders: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes the cgroups of the bed that process `supervisor` holds, and sweeps those whose supervisor
    /// was killed before it could.
    pub(crate) fn create(supervisor: u32) -> Result<Cgroups> {
        let own = fs::read_to_string("/proc/self/cgroup").context("read own cgroups")?;
        let mut folders = Vec::new();
        for hierarchy in hierarchies()? {
            let parent = hierarchy.parent(&own);
            sweep(&parent);
            let folder = parent.join(format!("{PREFIX}{supervisor}"));
            for folder in [folder.clone(), folder.join(DAEMONS)] {
                fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
                inherit_cpuset(&folder)?;
            }
            if hierarchy.has_controllers_of_v2() {
                hand_out_controllers(&parent)?;
            }
            folders.push(folder);
        }
        Ok(Cgroups { folders })
    }

    /// Moves a process into the bed's cgroups themselves, which will be the roots of its namespace.
    pub(crate) fn put(&self, pid: u32) -> Result<()> {
        self.folders.iter().try_for_each(|folder| write_pid(folder, pid))
    }

    /// Lets what is paused go on. On v1 it could not even be killed.
    pub(crate) fn thaw(&self) {
        self.folders.iter().for_each(|folder| thaw_tree(folder));
    }

    /// Kills what is left inside and removes all.
    pub(crate) fn remove(self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let result = self.folders.iter().try_for_each(|folder| remove_tree(folder));
            match result {
                Err(error) if Instant::now() > deadline => return Err(error).context("remove the bed's cgroups"),
                Err(_) => thread::sleep(Duration::from_millis(20)),
                Ok(()) => return Ok(()),
            }
        }
    }
}

/// Moves the calling process into the cgroups that process `pid` is in.
pub(crate) fn join_those_of(pid: u32) -> Result<()> {
    let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("read the bed's cgroups")?;
    let own = fs::read_to_string("/proc/self/cgroup").context("read own cgroups")?;
    for hierarchy in hierarchies()? {
        let folder = hierarchy.cgroup_of(&theirs);
        if let Some(folder) = folder.filter(|folder| hierarchy.cgroup_of(&own).as_ref() != Some(folder)) {
            write_pid(&folder, process::id())?;
        }
    }
    Ok(())
}

/// Makes the calling process's cgroups, which are the bed's, the roots of a new namespace, and moves it
/// on into [`DAEMONS`].
pub(crate) fn enter_namespace() -> Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup").context("read own cgroups")?;
    let hierarchies = hierarchies()?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")?;
    for hierarchy in &hierarchies {
        let folder = hierarchy.cgroup_of(&own).context("find own cgroup")?;
        write_pid(&folder.join(DAEMONS), process::id())?;
        if hierarchy.has_controllers_of_v2() {
            hand_out_controllers(&folder)?;
        }
    }
    Ok(())
}

/// What must be mounted where, to give a new root the layout of the host.
pub(crate) struct Mounts {
    hierarchies: Vec<Hierarchy>,
    /// Such as `cpu -> cpu,cpuacct`.
    symlinks: Vec<(PathBuf, PathBuf)>,
}

impl Mounts {
    /// Reads the host's layout.
    pub(crate) fn of_host() -> Result<Mounts> {
        let mut symlinks = Vec::new();
        for item in fs::read_dir(ROOT).with_context(|| format!("list {ROOT}"))? {
            let path = item.with_context(|| format!("list {ROOT}"))?.path();
            if let Ok(target) = fs::read_link(&path) {
                symlinks.push((path, target));
            }
        }
        Ok(Mounts { hierarchies: hierarchies()?, symlinks })
    }

    /// Mounts all under `new_root`; the calling process's cgroup namespace decides what shows.
    pub(crate) fn mount_in(&self, new_root: &Path) -> Result<()> {
        let in_new_root = |path: &Path| new_root.join(path.strip_prefix("/").unwrap_or(path));
        if self.hierarchies.iter().all(|hierarchy| hierarchy.mounted_at != Path::new(ROOT)) {
            let root = in_new_root(Path::new(ROOT));
            mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .with_context(|| format!("mount a tmpfs on {}", root.display()))?;
        }
        for hierarchy in &self.hierarchies {
            let target = in_new_root(&hierarchy.mounted_at);
            fs::create_dir_all(&target).with_context(|| format!("create {}", target.display()))?;
            let (kind, options) = match &hierarchy.kind {
                Kind::V2 => ("cgroup2", None),
                Kind::V1(names) if names.iter().any(|name| name.starts_with("name=")) => {
                    ("cgroup", Some(format!("none,{}", names.join(","))))
                }
                Kind::V1(names) => ("cgroup", Some(names.join(","))),
            };
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some(kind), &target, Some(kind), flags, options.as_deref())
                .with_context(|| format!("mount {kind} ({options:?}) on {}", target.display()))?;
        }
        for (link, target) in &self.symlinks {
            symlink(target, in_new_root(link)).with_context(|| format!("link {}", link.display()))?;
        }
        Ok(())
    }
}

fn write_pid(folder: &Path, pid: u32) -> Result<()> {
    let procs = folder.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| format!("move a process into {}", procs.display()))
}

/// A new v1 cpuset has no CPUs, and then takes no process.
fn inherit_cpuset(folder: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (own, parents) = (folder.join(name), folder.with_file_name(name));
        if own.exists() && parents.exists() {
            let value = fs::read(&parents).with_context(|| format!("read {}", parents.display()))?;
            fs::write(&own, value).with_context(|| format!("write {}", own.display()))?;
        }
    }
    Ok(())
}

/// Lets the children of a v2 cgroup have those of [`CONTROLLERS`] that it has itself.
fn hand_out_controllers(folder: &Path) -> Result<()> {
    let available = folder.join("cgroup.controllers");
    let available = fs::read_to_string(&available).with_context(|| format!("read {}", available.display()))?;
    let control = folder.join("cgroup.subtree_control");
    let value = CONTROLLERS.iter().filter(|name| available.split_whitespace().any(|n| n == **name));
    let value = value.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    fs::write(&control, value).with_context(|| format!("hand out controllers in {}", control.display()))
}

/// Removes the cgroups in `parent` of beds whose supervisor is no more.
fn sweep(parent: &Path) {
    for item in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = item.file_name();
        let supervisor = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if supervisor.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Still in use by a dying process: the next run's sweep will find it again.
            let _ = remove_tree(&item.path());
        }
    }
}

/// Kills the processes of a cgroup and its descendants, then removes it, children first.
fn remove_tree(folder: &Path) -> io::Result<()> {
    let items = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        items => items?,
    };
    for item in items {
        let item = item?;
        if item.file_type()?.is_dir() {
            remove_tree(&item.path())?;
        }
    }
    for pid in fs::read_to_string(folder.join("cgroup.procs"))?.lines().filter_map(|line| line.parse().ok()) {
        // Pid 0 stands for a process that this namespace can't see.
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    fs::remove_dir(folder)
}

fn thaw_tree(folder: &Path) {
    for (file, state) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let path = folder.join(file);
        if path.exists() {
            // A root has no state to be written.
            let _ = fs::write(path, state);
        }
    }
    let below = fs::read_dir(folder).into_iter().flatten().flatten().map(|item| item.path());
    below.filter(|path| path.is_dir()).for_each(|path| thaw_tree(&path));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_are_read() {
        let found = Hierarchy::parse_all(
            "30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             32 30 0:28 /docker/1 /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd\n\
             33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             34 30 0:30 / /elsewhere rw - cgroup2 cgroup2 rw\n",
        );
        let of = |at: usize, text| found[at].cgroup_of(text).map(|path| path.display().to_string());
        let own = "2:cpuacct,cpu:/a\n1:name=systemd:/docker/1/b\n0::/c\n";
        assert_eq!(found.len(), 3);
        assert_eq!(of(0, own).as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct/a"));
        assert_eq!(of(1, own).as_deref(), Some("/sys/fs/cgroup/systemd/b"));
        assert_eq!(of(2, own).as_deref(), Some("/sys/fs/cgroup/unified/c"));
        assert_eq!(of(1, "1:name=systemd:/elsewhere\n"), None);
    }
}
