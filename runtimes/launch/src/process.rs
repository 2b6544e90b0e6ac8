//! Children, each held by a pidfd: its end is one readiness event, and no signal can hit a stranger with a reused pid.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, kill_process, pidfd_open,
    pidfd_send_signal, waitid, waitpid,
};
use tokio::io::unix::AsyncFd;

use crate::Error;

/// Children that somebody waits for.
static KNOWN: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

fn known<T>(change: impl FnOnce(&mut HashSet<i32>) -> T) -> T {
    change(KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + n after signal n.
    pub status: u32,
    /// When its end was noticed.
    pub at: SystemTime,
}

/// A child, or a grandchild that becomes one when its parent ends. One that is dropped before its end is nobody's, and for
/// [`reap_strangers`] to reap.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    handle: AsyncFd<OwnedFd>,
    /// Whether its pid may be another's by now.
    reaped: AtomicBool,
}

impl Child {
    /// Takes a child in charge. It must not have been reaped.
    ///
    /// # Errors
    /// There is no such process, or this is not called within a tokio runtime.
    pub fn new(pid: i32) -> Result<Self, Error> {
        known(|known| known.insert(pid));
        let open = || -> io::Result<Self> {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("not a pid"))?;
            let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
            // SAFETY: an `OwnedFd` gives the same open descriptor out for as long as it lives, and `AsyncFd` owns it.
            #[allow(unsafe_code)]
            let handle = unsafe { AsyncFd::register(pidfd) }?;
            Ok(Self { pid, handle, reaped: AtomicBool::new(false) })
        };
        open().map_err(|error| {
            known(|known| known.remove(&pid));
            Error::system("open process")(error)
        })
    }

    /// Its process id, as this process sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Waits for its end and reaps it.
    pub async fn exited(&self) -> Exit {
        loop {
            let ready = self.handle.readable().await;
            match waitid(WaitId::PidFd(self.handle.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(status)) => {
                    self.forget();
                    return Exit { status: code_of(&status), at: SystemTime::now() };
                }
                Ok(None) | Err(rustix::io::Errno::AGAIN) => {
                    if let Ok(mut guard) = ready {
                        guard.clear_ready();
                    }
                }
                Err(error) => {
                    log::error!("wait for process {}: {error}", self.pid());
                    self.forget();
                    return Exit { status: 255, at: SystemTime::now() };
                }
            }
        }
    }

    fn forget(&self) {
        if !self.reaped.swap(true, Ordering::Relaxed) {
            known(|known| known.remove(&self.pid.as_raw_pid()));
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`Error::Finished`] if it has ended.
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.handle, signal) {
            Err(rustix::io::Errno::SRCH) => Err(Error::Finished),
            sent => sent.map_err(Error::system("send signal")),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The exit code, or 128 + n after signal n.
fn code_of(status: &WaitIdStatus) -> u32 {
    let code = status.exit_status().map(i32::unsigned_abs);
    let signal = status.terminating_signal().map(|n| 128 + n.unsigned_abs());
    code.or(signal).unwrap_or(255)
}

/// Reaps children that nobody waits for: what a runner had forked when it was killed half-way.
pub fn reap_strangers() {
    for pid in strangers() {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Kills and reaps children that nobody waits for, and what becomes a child by that. For a process that has no other
/// children than its runners'.
pub fn end_strangers() {
    loop {
        let strangers = strangers();
        if strangers.is_empty() {
            return;
        }
        for pid in strangers {
            // A child that was not reaped keeps its pid, so this hits nobody else.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

fn strangers() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|pid| pid.parse().ok())
        .collect();
    known(|known| pids.into_iter().filter(|pid| !known.contains(pid)).filter_map(Pid::from_raw).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{process::Command, thread, time::Duration};

    use rustix::process::{getpid, set_child_subreaper};

    use super::*;

    /// Strangers are those of the whole process.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn who_is_dropped_is_a_stranger_and_who_was_reaped_is_nobody() {
        let _alone = ALONE.lock().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let spawn = || Child::new(Command::new("true").spawn().unwrap().id().cast_signed()).unwrap();
        let dropped = spawn();
        let pid = dropped.pid();
        drop(dropped);
        let exists = || fs::exists(format!("/proc/{pid}")).unwrap();
        for _ in 0..1000 {
            reap_strangers();
            if !exists() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!exists(), "it was not reaped");

        let reaped = spawn();
        assert_eq!(runtime.block_on(reaped.exited()).status, 0);
        let reused = reaped.pid.as_raw_pid();
        known(|known| known.insert(reused));
        drop(reaped);
        assert!(known(|known| known.remove(&reused)), "a later child with its pid");
    }

    #[test]
    fn strangers_end_with_what_they_started() {
        let _alone = ALONE.lock().unwrap();
        set_child_subreaper(Some(getpid())).unwrap();
        let child = Command::new("sh").args(["-c", "sleep 1000 & sleep 1000"]).spawn().unwrap().id();
        let children = || fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap();
        while children().split_whitespace().count() < 2 {
            thread::sleep(Duration::from_millis(1));
        }
        let theirs = children();
        end_strangers();
        for pid in theirs.split_whitespace() {
            assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid}");
        }
    }
}
