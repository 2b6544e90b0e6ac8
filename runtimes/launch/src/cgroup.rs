//! The cgroup folders of one container, found by what the kernel tells: one file for a live process, without the work of
//! reading the mounts of every hierarchy.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// Where the hierarchies are mounted. Source: systemd's file-hierarchy(7), and what libcgroups takes for granted.
const ROOT: &str = "/sys/fs/cgroup";
/// The file that lists a cgroup's processes.
const PROCS: &str = "cgroup.procs";
/// How often, and how long between, a cgroup is looked at until the processes in it are gone: two seconds in all.
const TRIES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);

/// The folders of one container's cgroup, one a hierarchy.
#[derive(Clone, Debug)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// Those of a live process, less the ones that this process is in itself: a hierarchy in which the container has no
    /// cgroup of its own is none of its business.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let ours = fs::read_to_string("/proc/self/cgroup")?;
        let ours: HashSet<&str> = ours.lines().collect();
        let folders =
            theirs.lines().filter(|line| !ours.contains(line)).filter_map(|line| folder(Path::new(ROOT), line));
        Ok(Self(folders.filter(|folder| folder.is_dir()).collect()))
    }

    /// The cgroup `path`, in each hierarchy that has it.
    ///
    /// # Errors
    /// The kernel doesn't list the hierarchies.
    pub fn named(path: &Path) -> io::Result<Self> {
        let hierarchies = fs::read_to_string("/proc/self/cgroup")?;
        let folders = hierarchies.lines().filter_map(|line| {
            let (hierarchy, _) = line.rsplit_once(':')?;
            folder(Path::new(ROOT), &format!("{hierarchy}:{}", path.to_str()?))
        });
        Ok(Self(folders.filter(|folder| folder.is_dir()).collect()))
    }

    /// Their paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// A cgroup's folder, and all below it.
    #[must_use]
    pub fn tree(folder: &Path) -> Vec<PathBuf> {
        let mut all = vec![folder.to_owned()];
        all.extend(folders_in(folder).iter().flat_map(|below| Self::tree(below)));
        all
    }

    /// All processes in them.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.iter().flat_map(|folder| pids_below(folder)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Removes them and what is below them, when their last process has ended or is about to.
    ///
    /// # Errors
    /// The kernel refuses: most likely a process is left.
    pub fn remove(&self) -> Result<(), Error> {
        self.0
            .iter()
            .try_for_each(|folder| remove_tree(folder).map_err(|source| Error::Cgroup { path: folder.clone(), source }))
    }
}

/// Kills until `pids` finds nobody, or two seconds are over.
pub fn end_all(pids: impl Fn() -> Vec<u32>) {
    for _ in 0..TRIES {
        let left = pids();
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(PAUSE);
    }
}

/// Makes the next move of a process into a cgroup a quick one, by a move of our own that moves nothing.
///
/// The kernel waits for an RCU grace period, some ten milliseconds, before a first move, and not before one that follows
/// closely. A container's creation has to make one; this lets the wait run beside the work that comes before it.
/// Source: `cgroup_threadgroup_rwsem`, a `percpu_rw_semaphore`, in the kernel's `kernel/cgroup/cgroup.c`.
pub fn anticipate_move() {
    // Not spawning is no reason to fail: the wait is then where it always was.
    let _ = thread::Builder::new().stack_size(64 << 10).spawn(|| {
        let lines = fs::read_to_string("/proc/self/cgroup")?;
        let own = lines.lines().find_map(|line| folder(Path::new(ROOT), line).filter(|f| f.is_dir()));
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
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < TRIES => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            removed => return removed,
        }
    }
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

    #[test]
    fn a_cgroup_that_is_not_there_has_no_folders() {
        let none = Folders::named(Path::new("/lighter/no-such-container")).unwrap();
        assert!(none.0.is_empty() && none.pids().is_empty());
        none.remove().unwrap();
    }
}
