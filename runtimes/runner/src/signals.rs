//! A guest has no signal handlers, so the runner acts for it: a signal that asks a program to end ends it, at once,
//! with the exit code that a shell would show. SIGALRM is the runner's own, to give memory back once the guest is on its
//! way: a thread for it would cost more than it saves.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use lighter_runtime_api::resident::FilePages;
use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::alarm,
};

/// Signals whose default is to end a process. As pid 1 of a PID namespace the runner would not get that default.
const ENDING: &[Signal] =
    &[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// Seconds after which a guest is past its start; most are over by then.
const SETTLED: libc::c_uint = 1;

/// Seconds that an init waits for its start where that follows at once.
const UNSTARTED: libc::c_uint = 60;

/// What is given back then.
static PAGES: OnceLock<FilePages> = OnceLock::new();

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

/// Ends this process unless [`started`] is called within a minute: who was to start it is gone.
///
/// # Errors
/// The kernel refuses the handler.
pub(crate) fn end_unless_started() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_RESTART, SigSet::all());
    // SAFETY: `end` calls nothing but `_exit`, which is async-signal-safe.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    alarm::set(UNSTARTED);
    Ok(())
}

/// The start signal came.
pub(crate) fn started() {
    alarm::cancel();
}

/// Gives `pages` back in a second, and not at all if the guest is over by then.
///
/// # Errors
/// The kernel refuses the handler.
pub(crate) fn give_back_later(pages: FilePages) -> nix::Result<()> {
    // Set once, by the init.
    let _ = PAGES.set(pages);
    let action = SigAction::new(SigHandler::Handler(give_back), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: `give_back` makes system calls and reads an initialised `OnceLock`, both async-signal-safe, and leaves
    // errno as it was.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    alarm::set(SETTLED);
    Ok(())
}

extern "C" fn give_back(_: libc::c_int) {
    let errno = Errno::last_raw();
    if let Some(pages) = PAGES.get() {
        let _ = pages.give_back();
    }
    Errno::set_raw(errno);
}

extern "C" fn end(signal: libc::c_int) {
    // SAFETY: `_exit` takes any value, runs no destructors and touches no lock.
    unsafe { libc::_exit(128 + signal) }
}
