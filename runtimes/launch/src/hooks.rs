//! Hooks that are run around a container's program: after its start, and after the container's end.
//! Source: runtime-spec `runtime.md#lifecycle`, steps 9 and 13.

use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lighter_oci::Hooks;
use oci_spec::runtime::{ContainerState, Hook};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, time::timeout};

use crate::{Child, Error, runner::memory_file};

/// Bytes of what a hook prints that are kept for its failure.
const KEPT: usize = 4096;
/// How long what a hook printed is waited for after its end: something that it started may hold its streams.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Runs the hooks after the start of a container's program, whose init has this pid, one after the other.
///
/// # Errors
/// [`Error::Hook`] at the first that fails. The container is to be stopped then.
pub async fn poststart(hooks: &Hooks, pid: u32) -> Result<(), Error> {
    for hook in &hooks.poststart {
        run("poststart", hook, hooks, ContainerState::Running, Some(pid.cast_signed())).await?;
    }
    Ok(())
}

/// Runs the hooks after the end of a container. Those that fail change nothing, and are logged.
pub async fn poststop(hooks: &Hooks) {
    for hook in &hooks.poststop {
        if let Err(error) = run("poststop", hook, hooks, ContainerState::Stopped, None).await {
            log::warn!("{error}");
        }
    }
}

/// Runs one to its end, in the bundle's folder, with this process's environment if it names none.
async fn run(
    point: &'static str,
    hook: &Hook,
    hooks: &Hooks,
    status: ContainerState,
    pid: Option<i32>,
) -> Result<(), Error> {
    let failed = |why: String| Error::Hook { point, path: hook.path().clone(), why };
    let state = serde_json::to_vec(&hooks.state(status, pid)).map_err(|error| failed(error.to_string()))?;
    let (said, stdout) = io::pipe().map_err(Error::system("make a hook's streams"))?;
    let stderr = stdout.try_clone().map_err(Error::system("make a hook's streams"))?;
    let mut command = command(hook, &hooks.bundle);
    command.stdin(memory_file("state", &state)?).stdout(stdout).stderr(stderr);
    let child = command.spawn().map_err(|error| failed(error.to_string()))?;
    // It holds our ends of the streams.
    drop(command);
    let process = Child::new(child.id().cast_signed())?;
    let said = Said::listen(said.into())?;
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let ended = match limit {
        Some(limit) => timeout(limit, process.exited()).await.map_err(|_| limit),
        None => Ok(process.exited().await),
    };
    match ended {
        Ok(exit) if exit.status == 0 => Ok(()),
        Ok(exit) => Err(failed(format!("exit code {}{}", exit.status, said.words().await))),
        Err(limit) => {
            // With what it has started. It was not reaped, so that its group is nobody else's.
            if let Some(group) = Pid::from_raw(process.pid().cast_signed()) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            process.exited().await;
            Err(failed(format!("it ran longer than its timeout of {} s", limit.as_secs())))
        }
    }
}

/// A hook's command line.
fn command(hook: &Hook, bundle: &Path) -> Command {
    let mut command = Command::new(hook.path());
    command.current_dir(bundle).stdin(Stdio::null()).process_group(0);
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    if let Some(env) = hook.env() {
        command.env_clear().envs(env.iter().filter_map(|variable| variable.split_once('=')));
    }
    command
}

/// What a hook prints, from its beginning.
struct Said {
    kept: Arc<Mutex<Vec<u8>>>,
    listener: tokio::task::JoinHandle<()>,
}

impl Said {
    fn listen(pipe: std::os::fd::OwnedFd) -> Result<Self, Error> {
        let mut pipe = Receiver::from_owned_fd(pipe).map_err(Error::system("read a hook's streams"))?;
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        let listener = tokio::spawn(async move {
            let mut bytes = [0; KEPT];
            // To the end, for a hook must not wait for a reader.
            while let Ok(length @ 1..) = pipe.read(&mut bytes).await {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                let room = KEPT - kept.len();
                kept.extend_from_slice(&bytes[..length.min(room)]);
            }
        });
        Ok(Self { kept, listener })
    }

    /// In one line that goes on after another sentence.
    async fn words(self) -> String {
        let _ = timeout(LAST_WORDS, self.listener).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() { String::new() } else { format!(": {}", lines.join("; ")) }
    }
}
