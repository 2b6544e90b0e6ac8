//! What a program that is exec'd would inherit from the shim and the runner, and must not. The kernel and libcontainer take
//! care of the rest: handlers, descriptors, `dumpable`, the name.
#![allow(unsafe_code)]

use std::io;

use nix::{
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::setgroups,
};

use crate::Error;

/// The first argument of `keyctl`. Source: keyctl(2).
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Leaves the supplementary groups and the session keyring, which libcontainer leaves as they are where the spec does not
/// name others, and hides this process's memory, descriptors and program from those in the container. Called before the fork.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn drop_identity() -> Result<(), Error> {
    let failed = |operation| move |why: io::Error| Error::Legacy { operation, why };
    // Until the exec, which sets it back.
    prctl::set_dumpable(false).map_err(io::Error::from).map_err(failed("forbid tracing"))?;
    setgroups(&[]).map_err(io::Error::from).map_err(failed("leave supplementary groups"))?;
    // SAFETY: a null name makes a new keyring without a name, and nothing is read.
    let joined =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    match io::Error::last_os_error() {
        _ if joined != -1 => Ok(()),
        // A kernel without keys has none to give away.
        error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        error => Err(failed("leave session keyring")(error)),
    }
}

/// Gives every signal its default and blocks none: a program inherits what is ignored (SIGPIPE by every program of Rust's)
/// and what is blocked. Called in the init, before its exec.
pub(crate) fn drop_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is no handler. It fails for SIGKILL, SIGSTOP and the C library's own signals, which are never
        // ignored.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // It fails for wrong arguments only.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}
