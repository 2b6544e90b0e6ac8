//! A guest has no signal handlers, so the runner acts for it: a signal that asks a program to end ends it, at once,
//! with the exit code that a shell would show.
#![allow(unsafe_code)]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Signals whose default is to end a process. As pid 1 of a PID namespace the runner would not get that default.
const ENDING: &[Signal] =
    &[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM];

/// Makes ending signals end the process with 128 + n, also inside a busy loop or a blocking call of the guest's.
///
/// Installed before the fork, so that the init has the handlers from its first instruction on.
///
/// # Errors
/// The kernel refuses a handler.
pub(crate) fn install() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_RESTART, SigSet::all());
    for &signal in ENDING {
        // SAFETY: `end` calls nothing but `_exit`, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

extern "C" fn end(signal: libc::c_int) {
    // SAFETY: `_exit` takes any value, runs no destructors and touches no lock.
    unsafe { libc::_exit(128 + signal) }
}
