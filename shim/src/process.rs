//! Children of the daemon, each held by a pidfd: its end is one readiness event, and no signal can hit a stranger with a
//! reused pid.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid, waitpid,
};
use tokio::io::unix::AsyncFd;

use crate::{error::Error, sandbox::Exit};

/// Children that somebody waits for.
static KNOWN: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

fn known<T>(change: impl FnOnce(&mut HashSet<i32>) -> T) -> T {
    change(KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// A child, or a grandchild that becomes one when its parent ends.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    handle: AsyncFd<OwnedFd>,
}

impl Child {
    /// Takes a child in charge. It must not have been reaped.
    pub(crate) fn new(pid: i32) -> Result<Self, Error> {
        known(|known| known.insert(pid));
        let open = || -> io::Result<Self> {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("not a pid"))?;
            let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
            // SAFETY: an `OwnedFd` gives the same open descriptor out for as long as it lives, and `AsyncFd` owns it.
            #[allow(unsafe_code)]
            let handle = unsafe { AsyncFd::register(pidfd) }?;
            Ok(Self { pid, handle })
        };
        open().map_err(|error| {
            known(|known| known.remove(&pid));
            Error::system("open process")(error)
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Waits for its end and reaps it.
    pub(crate) async fn exited(&self) -> Exit {
        loop {
            let ready = self.handle.readable().await;
            match waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(status)) => {
                    known(|known| known.remove(&self.pid.as_raw_pid()));
                    return Exit { status: code_of(&status), at: SystemTime::now() };
                }
                Ok(None) | Err(rustix::io::Errno::AGAIN) => {
                    if let Ok(mut guard) = ready {
                        guard.clear_ready();
                    }
                }
                Err(error) => {
                    log::error!("wait for process {}: {error}", self.pid());
                    return Exit { status: 255, at: SystemTime::now() };
                }
            }
        }
    }

    pub(crate) fn kill(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => Err(Error::Finished),
            sent => sent.map_err(Error::system("send signal")),
        }
    }
}

/// The exit code, or 128 + n after signal n.
fn code_of(status: &WaitIdStatus) -> u32 {
    let code = status.exit_status().map(i32::unsigned_abs);
    let signal = status.terminating_signal().map(|n| 128 + n.unsigned_abs());
    code.or(signal).unwrap_or(255)
}

/// Reaps children that nobody waits for: what a runner had forked when it was killed half-way.
pub(crate) fn reap_strangers() {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    for children in threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()) {
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if !known(|known| known.contains(&pid)) {
                let _ = waitpid(Pid::from_raw(pid), rustix::process::WaitOptions::NOHANG);
            }
        }
    }
}
