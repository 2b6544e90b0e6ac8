//! The signals that end a server in order: SIGTERM and SIGINT.
#![allow(unsafe_code)]

use std::io;

use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::signal::unix::{self, SignalKind};

/// Waits for them.
pub(super) struct Ends {
    term: unix::Signal,
    int: unix::Signal,
}

impl Ends {
    /// From now on they do not end the process at once.
    pub(super) fn new() -> io::Result<Self> {
        for ending in [Signal::SIGTERM, Signal::SIGINT] {
            // The runner's handler, which ends the process, would be called beside tokio's if it were still there.
            // SAFETY: to ignore a signal runs no code.
            unsafe { signal(ending, SigHandler::SigIgn) }?;
        }
        Ok(Self { term: unix::signal(SignalKind::terminate())?, int: unix::signal(SignalKind::interrupt())? })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
