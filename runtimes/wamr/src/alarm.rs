//! Keeps the runner's SIGALRM away from the guest's calls.
//!
//! A second into a guest's run the runner gives memory back from a signal handler. That ends a sleep with EINTR, whatever
//! the handler's flags, and WAMR passes the error on to the guest. Source: signal(7), "Interruption of system calls".
#![allow(unsafe_code)]

use std::{ptr, thread};

use nix::sys::signal::{SigSet, Signal};

/// Bytes of a stack on which next to nothing happens.
const STACK: usize = 32 << 10;

/// Longer than the alarm takes to come, in seconds.
const PATIENCE: libc::time_t = 5;

/// Has a thread take the signal, which then ends. All threads to come leave it alone as well.
///
/// Where there can't be a thread, nobody takes it: the guest runs, and only the memory is not given back.
pub(crate) fn divert() {
    let mut alarm = SigSet::empty();
    alarm.add(Signal::SIGALRM);
    if alarm.thread_block().is_err() {
        return;
    }
    let _ = thread::Builder::new().stack_size(STACK).spawn(move || {
        if alarm.thread_unblock().is_ok() {
            let patience = libc::timespec { tv_sec: PATIENCE, tv_nsec: 0 };
            // SAFETY: it reads the time, and ends early when the signal has come.
            unsafe { libc::nanosleep(&raw const patience, ptr::null_mut()) };
        }
    });
}
