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
use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, DEFAULT_CGROUP_ROOT, create_cgroup_manager};
use lighter_oci::Cgroup;
use nix::sys::signal::{Signal, kill};

use crate::{error::Error, stats};

/// How often, and how long between, a cgroup is looked at until the processes in it are gone: two seconds in all.
const TRIES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);
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

    /// All processes in them.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.0.iter().flat_map(|folder| pids_below(folder)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Ends every process in them and removes them.
    fn remove(&self) -> Result<(), Error> {
        end_all(|| self.pids());
        self.0.iter().try_for_each(|folder| {
            remove_tree(folder).map_err(|error| Error::Cgroup { path: folder.clone(), why: error.to_string() })
        })
    }
}

/// What of a cgroup is known.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// A container runs, or ran, in these.
    Folders(Folders),
    /// The runtime spec names it. It may be there or not.
    Named(Cgroup),
}

impl Known {
    /// Ends every process in it and removes it. A cgroup that isn't there is no error.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        match self {
            Self::Folders(folders) => folders.remove(),
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
    stats::collect(&manager(cgroup, id)?, pid).map_err(|why| failed(cgroup, why))
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
