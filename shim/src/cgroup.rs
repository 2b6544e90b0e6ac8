//! A container's cgroup, seen from outside: its processes, its figures, its end.

use std::{thread, time::Duration};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, create_cgroup_manager};
use lighter_oci::Cgroup;
use nix::sys::signal::{Signal, kill};

use crate::{error::Error, stats};

/// How often, and how long between, a cgroup is looked at until the processes in it are gone: two seconds in all.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

fn manager(cgroup: &Cgroup, id: &str) -> Result<AnyCgroupManager, Error> {
    let config =
        CgroupConfig { cgroup_path: cgroup.path.clone(), systemd_cgroup: cgroup.systemd, container_name: id.to_owned() };
    create_cgroup_manager(config).map_err(|error| failed(cgroup, error))
}

fn failed(cgroup: &Cgroup, error: impl ToString) -> Error {
    Error::Cgroup { path: cgroup.path.clone(), why: error.to_string() }
}

/// All processes in it.
pub(crate) fn pids(cgroup: &Cgroup, id: &str) -> Result<Vec<u32>, Error> {
    let pids = manager(cgroup, id)?.get_all_pids().map_err(|error| failed(cgroup, error))?;
    Ok(pids.into_iter().map(|pid| pid.as_raw().unsigned_abs()).collect())
}

/// containerd's `Metrics` message; `pid` is any process of the container.
pub(crate) fn stats(cgroup: &Cgroup, id: &str, pid: u32) -> Result<Any, Error> {
    stats::collect(&manager(cgroup, id)?, pid).map_err(|why| failed(cgroup, why))
}

/// Ends every process in it and removes it. A cgroup that isn't there is no error.
pub(crate) fn remove(cgroup: &Cgroup, id: &str) -> Result<(), Error> {
    let manager = manager(cgroup, id)?;
    for _ in 0..TRIES {
        // An error here means that there is no such cgroup (any more).
        let left = manager.get_all_pids().unwrap_or_default();
        if left.is_empty() {
            break;
        }
        for pid in left {
            let _ = kill(nix::unistd::Pid::from_raw(pid.as_raw()), Signal::SIGKILL);
        }
        thread::sleep(PAUSE);
    }
    manager.remove().map_err(|error| failed(cgroup, error))
}
