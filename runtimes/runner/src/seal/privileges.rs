//! Gives up what a process may do beyond any other.

use std::{
    fs::File,
    io::{self, Write},
};

use caps::CapSet;
use nix::{
    fcntl::OFlag,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
};

use super::{failed, open_in_proc};
use crate::Error;

/// Drops all capabilities from all sets, for good; forbids core dumps and being traced.
pub(super) fn drop_all() -> Result<(), Error> {
    // Bounding first: it takes CAP_SETPCAP, which goes with the others. Without it there is nothing to drop.
    let may_drop =
        caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).map_err(failed("read capabilities"))?;
    if may_drop {
        caps::clear(None, CapSet::Bounding).map_err(failed("drop bounding capabilities"))?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(failed("drop capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    prctl::set_dumpable(false).map_err(failed("forbid tracing"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("forbid core dumps"))
}

/// Enters an AppArmor profile now. `exec` profiles, which other runtimes use, never apply to a guest: nothing is exec'd.
///
/// Source: `apparmor.d(7)`, the kernel's `Documentation/admin-guide/LSM/apparmor.rst`.
pub(super) fn enter_apparmor(proc: &File, profile: &str) -> Result<(), Error> {
    // The first is the interface since Linux 5.8, where several security modules may be stacked.
    let mut file = open_in_proc(proc, "self/attr/apparmor/current", OFlag::O_WRONLY)
        .or_else(|_| open_in_proc(proc, "self/attr/current", OFlag::O_WRONLY))
        .map_err(failed("open AppArmor's interface"))?;
    file.write_all(format!("changeprofile {profile}").as_bytes()).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!("{profile} is not loaded; load it with apparmor_parser"),
            _ => format!("{profile}: {error}"),
        };
        Error::Seal { operation: "enter AppArmor profile", why }
    })
}
