//! Starts a guest and stays until its end: signals go to it, time runs out for it.

use std::{io, os::fd::AsFd, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use lighter_launch::{GuestStdio, Inherited, Init, Runner, anticipate_move};
use lighter_oci::Plan;
use nix::sys::prctl;
use rustix::process::Signal;

use super::signals::Signals;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest's exit code, or 128 + n after signal n.
    Guest(u8),
    /// The guest was ended because its time was over.
    TimedOut,
    /// A signal came before the guest ran.
    Interrupted(Signal),
}

impl End {
    /// As a shell shows it; 124 is what timeout(1) gives.
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Guest(code) => code.into(),
            Self::TimedOut => 124.into(),
            Self::Interrupted(signal) => u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX).into(),
        }
    }
}

/// Builds the sandbox, runs the guest on this process's own streams and waits for its end. Tells when the sandbox stands, and
/// when the guest runs.
pub(crate) async fn supervise(
    runner: &Path,
    plan: &Plan,
    timeout: Option<Duration>,
    signals: &mut Signals,
    created: impl FnOnce(),
    started: impl FnOnce(),
) -> Result<End> {
    // The init is a child of the runner's, which ends before it.
    prctl::set_child_subreaper(true).context("become subreaper")?;
    if !plan.user_namespace {
        anticipate_move();
    }
    let runner = Runner::spawn(runner, plan, Inherited { stdio: own_streams()?, bound: None })?;
    let init = match create(&runner, signals).await? {
        Ok(init) => init,
        Err(signal) => return Ok(End::Interrupted(signal)),
    };
    created();
    let ran = run(&init, timeout, signals, started).await;
    if ran.is_err() {
        // It does not matter to one that has ended.
        let _ = init.kill(Signal::KILL);
        init.exited().await;
    }
    ran
}

/// Waits for the sandbox. A signal ends the runner, which a compilation may keep busy, and is returned.
async fn create(runner: &Runner, signals: &mut Signals) -> Result<Result<Init, Signal>> {
    let created = runner.created();
    tokio::pin!(created);
    match signals.unless(&mut created).await {
        Ok(created) => Ok(Ok(created?)),
        Err(signal) => {
            let _ = runner.kill(Signal::KILL);
            // If it stands already, it goes with everything else that is left.
            if let Ok(init) = created.await {
                let _ = init.kill(Signal::KILL);
                init.exited().await;
            }
            Ok(Err(signal))
        }
    }
}

async fn run(init: &Init, timeout: Option<Duration>, signals: &mut Signals, started: impl FnOnce()) -> Result<End> {
    init.start().await?;
    started();
    let timer = async {
        match timeout {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let ended = init.exited();
    tokio::pin!(timer, ended);
    let mut timed_out = false;
    loop {
        tokio::select! {
            exit = &mut ended => {
                return Ok(if timed_out { End::TimedOut } else { End::Guest(u8::try_from(exit.status).unwrap_or(u8::MAX)) });
            }
            () = &mut timer, if !timed_out => {
                timed_out = true;
                let _ = init.kill(Signal::KILL);
            }
            signal = signals.next() => {
                // One that has ended meanwhile needs none.
                let _ = init.kill(signal);
            }
        }
    }
}

/// Copies of this process's standard streams.
fn own_streams() -> Result<GuestStdio> {
    fn copy(stream: &impl AsFd) -> io::Result<std::os::fd::OwnedFd> {
        stream.as_fd().try_clone_to_owned()
    }
    let streams = || -> io::Result<GuestStdio> {
        Ok(GuestStdio { stdin: copy(&io::stdin())?, stdout: copy(&io::stdout())?, stderr: copy(&io::stderr())? })
    };
    streams().context("hand over standard streams")
}
