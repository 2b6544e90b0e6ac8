//! Becomes the user that a spec names, with its limits and rights and no more.

use libcontainer::{
    apparmor, capabilities,
    seccomp::initialize_seccomp,
    syscall::{Syscall, syscall::create_syscall},
};
use nix::{
    errno::Errno,
    sys::{prctl, stat},
    unistd::{Gid, Uid, chdir, getcwd, setgroups, setresgid, setresuid},
};
use oci_spec::runtime::{LinuxSeccomp, Spec};

use super::failed;
use crate::Error;

/// Called in the container, as root there.
///
/// # Errors
/// The kernel refuses a step; the program must not run.
pub(super) fn assume(sandbox: &Spec) -> Result<(), Error> {
    let missing = || failed("read the spec")("it has no process");
    let process = sandbox.process().as_ref().ok_or_else(missing)?;
    let seccomp = sandbox.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let syscall = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(limit).map_err(failed("set limit"))?;
    }
    if let Some(profile) = process.apparmor_profile() {
        apparmor::apply_profile(profile).map_err(failed("enter AppArmor profile at exec"))?;
    }
    if let Some(umask) = process.user().umask() {
        stat::umask(stat::Mode::from_bits_truncate(umask));
    }
    // It may be a folder that the user can't enter, or one that only the user can.
    let inside = match chdir(process.cwd()) {
        Ok(()) => true,
        Err(Errno::EPERM | Errno::EACCES) => false,
        Err(errno) => return Err(working_directory(sandbox, errno)),
    };
    let user = process.user();
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().copied().map(Gid::from_raw).collect();
    match setgroups(&groups) {
        // A user namespace may forbid it; there are none to leave then.
        Err(Errno::EPERM) if groups.is_empty() => {}
        set => set.map_err(failed("set supplementary groups"))?,
    }
    become_user(Uid::from_raw(user.uid()), Gid::from_raw(user.gid())).map_err(failed("become its user"))?;
    // They go with the change of user, and are needed for what follows.
    capabilities::reset_effective(&*syscall).map_err(failed("reset capabilities"))?;
    syscall.close_range(0).map_err(failed("mark descriptors to be closed"))?;

    let no_new_privileges = process.no_new_privileges() == Some(true);
    if no_new_privileges {
        prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    } else {
        // While there is the right to.
        filter(seccomp)?;
    }
    rights(sandbox, &*syscall)?;
    if !inside {
        chdir(process.cwd()).map_err(|errno| working_directory(sandbox, errno))?;
    }
    // A descriptor of the host's must not have led out of the container.
    getcwd().map_err(|errno| working_directory(sandbox, errno))?;
    if no_new_privileges { filter(seccomp) } else { Ok(()) }
}

/// Keeps the permitted capabilities, which [`rights`] bounds.
fn become_user(user: Uid, group: Gid) -> nix::Result<()> {
    prctl::set_keepcaps(true)?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    prctl::set_keepcaps(false)
}

fn rights(sandbox: &Spec, syscall: &dyn Syscall) -> Result<(), Error> {
    match sandbox.process().as_ref().and_then(|process| process.capabilities().as_ref()) {
        Some(named) => capabilities::drop_privileges(named, syscall).map_err(failed("drop capabilities")),
        None => Ok(()),
    }
}

fn filter(profile: Option<&LinuxSeccomp>) -> Result<(), Error> {
    let Some(profile) = profile else { return Ok(()) };
    initialize_seccomp(profile).map(drop).map_err(failed("load seccomp profile"))
}

fn working_directory(sandbox: &Spec, errno: Errno) -> Error {
    let path = sandbox.process().as_ref().map(|process| process.cwd().clone()).unwrap_or_default();
    failed("enter working directory")(format!("{}: {}", path.display(), errno.desc().to_lowercase()))
}
