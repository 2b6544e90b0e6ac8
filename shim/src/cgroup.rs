//! A container's cgroup, seen from outside: its processes, its figures, its end.
//!
//! While a container lives, the kernel tells where its folders are, in one file; libcgroups, which works them out from the
//! mounts of every hierarchy, takes a millisecond for it. It is left for what is rare: figures, and clean-up when nobody
//! is left to ask.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, CgroupSetup, DEFAULT_CGROUP_ROOT, create_cgroup_manager,
    get_cgroup_setup,
};
use lighter_oci::{Cgroup, Plan};
use nix::sys::signal::{Signal, kill};

use crate::{error::Error, stats};

/// How often, and how long between, a cgroup is looked at until the processes in it are gone: two seconds in all.
const TRIES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);
/// How often systemd may be found not to have removed a scope yet, before it is asked to: half a second in all.
const SYSTEMD_TRIES: u32 = 500;
/// How the name of a cgroup of systemd's ends that is one container's.
const SCOPE: &str = "scope";
/// The file that lists a cgroup's processes.
const PROCS: &str = "cgroup.procs";

/// The folders of one container's cgroup, one a hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Folders(Vec<PathBuf>);

impl Folders {
    /// Those of a live process, less the ones that this daemon is in itself: a hierarchy in which the container has no
    /// cgroup of its own is none of its business.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let ours = fs::read_to_string("/proc/self/cgroup")?;
        let ours: HashSet<&str> = ours.lines().collect();
        let root = Path::new(DEFAULT_CGROUP_ROOT);
        let folders = theirs.lines().filter(|line| !ours.contains(line)).filter_map(|line| folder(root, line));
        Ok(Self(folders.filter(|folder| folder.is_dir()).collect()))
    }

    /// Binds the processes in them to CPUs and memory nodes.
    pub(crate) fn bind(&self, cpus: &Cpuset) -> io::Result<()> {
        for (file, list) in [("cpuset.cpus", &cpus.cpus), ("cpuset.mems", &cpus.mems)] {
            if let Some(list) = list {
                self.0.iter().try_for_each(|folder| fs::write(folder.join(file), list))?;
            }
        }
        Ok(())
    }

    /// All processes in them.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.iter().flat_map(|folder| pids_below(folder)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Ends every process in them and removes them.
    fn remove(&self, cgroup: &Cgroup, id: &str) -> Result<(), Error> {
        end_all(|| self.pids());
        if let Some(scope) = self.0.iter().find(|folder| folder.extension().is_some_and(|kind| kind == SCOPE)) {
            leave_to_systemd(scope, cgroup, id)?;
        }
        self.0.iter().try_for_each(|folder| {
            remove_tree(folder).map_err(|error| Error::Cgroup { path: folder.clone(), why: error.to_string() })
        })
    }
}

/// Lists of CPUs and of memory nodes, as cpuset(7) writes them.
#[derive(Debug, Default)]
pub(crate) struct Cpuset {
    cpus: Option<String>,
    mems: Option<String>,
}

impl Cpuset {
    /// Takes it out of a plan for a scope of systemd's, to be written by [`Folders::bind`].
    ///
    /// libcgroups would send it to systemd as an array of 64-bit numbers, which systemd refuses: it takes bytes.
    pub(crate) fn take(plan: &mut Plan) -> Self {
        let unified = get_cgroup_setup().is_ok_and(|setup| matches!(setup, CgroupSetup::Unified));
        if !(unified && plan.cgroup.systemd) {
            return Self::default();
        }
        let resources = plan.sandbox.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
        let Some(cpu) = resources.and_then(|resources| resources.cpu_mut().as_mut()) else { return Self::default() };
        let own = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
        let taken = Self { cpus: own(cpu.cpus()), mems: own(cpu.mems()) };
        cpu.set_cpus(None);
        cpu.set_mems(None);
        taken
    }
}

/// What of a cgroup is known.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// A container runs, or ran, in these.
    Folders(Folders, Cgroup),
    /// The runtime spec names it. It may be there or not.
    Named(Cgroup),
}

impl Known {
    /// Ends every process in it and removes it. A cgroup that isn't there is no error.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        match self {
            Self::Folders(folders, cgroup) => folders.remove(cgroup, id),
            Self::Named(cgroup) => {
                let manager = manager(cgroup, id)?;
                // An error means that there is no such cgroup (any more).
                end_all(|| {
                    let pids = manager.get_all_pids().unwrap_or_default();
                    pids.into_iter().map(|pid| pid.as_raw().unsigned_abs()).collect()
                });
                manager.remove().map_err(|error| failed(cgroup, error))
            }
        }
    }
}

/// containerd's `Metrics` message; `pid` is any process of the container.
pub(crate) fn stats(cgroup: &Cgroup, id: &str, pid: u32) -> Result<Any, Error> {
    stats::collect(|| manager(cgroup, id).map_err(|error| error.to_string()), pid).map_err(|why| failed(cgroup, why))
}

/// Makes the next move of a process into a cgroup a quick one, by a move of our own that moves nothing.
///
/// The kernel waits for an RCU grace period, some ten milliseconds, before a first move, and not before one that follows
/// closely. A container's creation has to make one; this lets the wait run beside the work that comes before it.
/// Source: `cgroup_threadgroup_rwsem`, a `percpu_rw_semaphore`, in the kernel's `kernel/cgroup/cgroup.c`.
pub(crate) fn anticipate_move() {
    // Not spawning is no reason to fail: the wait is then where it always was.
    let _ = thread::Builder::new().stack_size(64 << 10).spawn(|| {
        let lines = fs::read_to_string("/proc/self/cgroup")?;
        let own = lines.lines().find_map(|line| folder(Path::new(DEFAULT_CGROUP_ROOT), line).filter(|f| f.is_dir()));
        own.map_or(Ok(()), |folder| fs::write(folder.join(PROCS), "0"))
    });
}

/// The folder that a line of `/proc/PID/cgroup` means. Source: cgroups(7).
fn folder(root: &Path, line: &str) -> Option<PathBuf> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let hierarchy = match controllers {
        // v2: at the root, or beside the v1 hierarchies.
        "" if root.join("cgroup.controllers").exists() => root.to_owned(),
        "" => root.join("unified"),
        named => root.join(named.strip_prefix("name=").unwrap_or(named)),
    };
    Some(hierarchy.join(path.trim_start_matches('/')))
}

fn pids_below(folder: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_to_string(folder.join(PROCS))
        .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
        .unwrap_or_default();
    for below in folders_in(folder) {
        pids.extend(pids_below(&below));
    }
    pids
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a cgroup and those below it. The last process may still be on its way out.
fn remove_tree(folder: &Path) -> io::Result<()> {
    for below in folders_in(folder) {
        remove_tree(&below)?;
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && tries < TRIES => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
}

/// Waits until systemd has removed a scope's cgroup, which it does once the last process has left.
///
/// If the folder were removed here, systemd could miss that the scope has ended: it would stay active without a cgroup,
/// and the container could not be started again, because systemd is told to move the new init into the old scope.
fn leave_to_systemd(scope: &Path, cgroup: &Cgroup, id: &str) -> Result<(), Error> {
    let gone = || {
        (0..SYSTEMD_TRIES).any(|_| {
            let gone = !scope.exists();
            if !gone {
                thread::sleep(PAUSE);
            }
            gone
        })
    };
    if !gone() {
        manager(cgroup, id)?.remove().map_err(|error| failed(cgroup, error))?;
        gone();
    }
    Ok(())
}

/// Kills until nobody is left, or two seconds are over.
fn end_all(pids: impl Fn() -> Vec<u32>) {
    for _ in 0..TRIES {
        let left = pids();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        thread::sleep(PAUSE);
    }
}

fn manager(cgroup: &Cgroup, id: &str) -> Result<AnyCgroupManager, Error> {
    let config = CgroupConfig {
        cgroup_path: cgroup.path.clone(),
        systemd_cgroup: cgroup.systemd,
        container_name: id.to_owned(),
    };
    create_cgroup_manager(config).map_err(|error| failed(cgroup, error))
}

fn failed(cgroup: &Cgroup, error: impl ToString) -> Error {
    Error::Cgroup { path: cgroup.path.clone(), why: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_every_layout() {
        let root = tempfile::tempdir().unwrap();
        let at = |line| folder(root.path(), line).map(|f| f.strip_prefix(root.path()).unwrap().to_owned());
        assert_eq!(at("4:cpu,cpuacct:/docker/x"), Some("cpu,cpuacct/docker/x".into()));
        assert_eq!(at("9:name=systemd:/a:b"), Some("systemd/a:b".into()));
        assert_eq!(at("0::/x"), Some("unified/x".into()));
        fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(at("0::/system.slice/docker-x.scope"), Some("system.slice/docker-x.scope".into()));
        assert_eq!(at("nonsense"), None);
    }

    #[test]
    fn what_we_are_in_ourselves_is_nobodys_to_remove() {
        assert!(Folders::of(std::process::id()).unwrap().0.is_empty());
    }
}
