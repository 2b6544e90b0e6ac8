//! A container's cgroup, seen from outside: its processes, its end.
//!
//! While a container lives, the kernel tells where its folders are ([`Folders`]); libcgroups, which works them out from the
//! mounts of every hierarchy, takes a millisecond for it, and more the more mounts there are. It is left for what is rare: clean-up
//! when nobody is left to ask.

use std::{fs, io, path::Path, thread, time::Duration};

use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, CgroupSetup, create_cgroup_manager, get_cgroup_setup,
};
use lighter_launch::{Folders, end_all};
use lighter_oci::{Cgroup, Plan};

use crate::{error::Error, freezer::Freezer};

/// How often, and how long between, systemd may be found not to have removed a scope yet, before it is asked to: half a
/// second in all.
const SYSTEMD_TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(1);
/// How the name of a cgroup of systemd's ends that is one container's.
const SCOPE: &str = "scope";

/// Lists of CPUs and of memory nodes, as cpuset(7) writes them.
#[derive(Debug, Default)]
pub(crate) struct Cpuset {
    cpus: Option<String>,
    mems: Option<String>,
}

impl Cpuset {
    /// Takes it out of a plan for a scope of systemd's, to be written by [`Self::bind`].
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

    /// Binds the processes of a cgroup to it.
    pub(crate) fn bind(&self, folders: &Folders) -> io::Result<()> {
        for (file, list) in [("cpuset.cpus", &self.cpus), ("cpuset.mems", &self.mems)] {
            if let Some(list) = list {
                folders.paths().try_for_each(|folder| fs::write(folder.join(file), list))?;
            }
        }
        Ok(())
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
            Self::Folders(folders, cgroup) => {
                thaw(folders)?;
                end_all(|| folders.pids());
                if let Some(scope) = folders.paths().find(|path| path.extension().is_some_and(|kind| kind == SCOPE)) {
                    leave_to_systemd(scope, cgroup, id)?;
                }
                Ok(folders.remove()?)
            }
            Self::Named(cgroup) => {
                let manager = manager(cgroup, id)?;
                // Of a scope of systemd's in v2 there are none. What stands still there can be killed all the same.
                let folders = Folders::named(&cgroup.path).map_err(Error::system("find the container's cgroup"))?;
                thaw(&folders)?;
                // An error means that there is no such cgroup (any more).
                end_all(|| {
                    let pids = manager.get_all_pids().unwrap_or_default();
                    pids.into_iter().map(|pid| pid.as_raw().unsigned_abs()).collect()
                });
                manager.remove().map_err(|error| failed(cgroup, error))?;
                // Hierarchies that libcgroups does not know: v2's beside v1.
                Ok(folders.remove()?)
            }
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

/// What stands still in cgroup v1 does not even die.
fn thaw(folders: &Folders) -> Result<(), Error> {
    Freezer::of(folders).map_or(Ok(()), |freezer| freezer.thaw())
}

pub(crate) fn manager(cgroup: &Cgroup, id: &str) -> Result<AnyCgroupManager, Error> {
    let config = CgroupConfig {
        cgroup_path: cgroup.path.clone(),
        systemd_cgroup: cgroup.systemd,
        container_name: id.to_owned(),
    };
    create_cgroup_manager(config).map_err(|error| failed(cgroup, error))
}

pub(crate) fn failed(cgroup: &Cgroup, error: impl ToString) -> Error {
    Error::Cgroup { path: cgroup.path.clone(), why: error.to_string() }
}
