//! The processes that were added to a task: which call is right in which phase.
//!
//! ```text
//! Added ─▶ Running ─▶ Stopped ─▶ (gone)
//!   └────────▲ could not start
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, OnceLock, PoisonError},
    time::SystemTime,
};

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted, TaskExit};
use tokio::sync::{Mutex, watch};

use crate::{
    error::Error,
    events::{Publish, publish},
    sandbox::{ExecRequest, Execution, Exit, Sandbox, Size},
    stdio::StdioPaths,
    tasks::timestamp,
};

/// What is reported of one that could not be started.
const NOT_STARTED: u32 = 255;

/// All of one task.
pub(crate) struct Execs<E>(std::sync::Mutex<HashMap<String, Arc<Exec<E>>>>);

/// One of them.
pub(crate) struct Exec<E> {
    /// The container's id.
    task: String,
    request: ExecRequest,
    phase: Mutex<ExecPhase>,
    process: OnceLock<E>,
    /// Turns true when nobody waits for its start any more.
    unwanted: watch::Sender<bool>,
    exit: watch::Sender<Option<Exit>>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecPhase {
    Added,
    Running,
    Stopped(Exit),
}

impl ExecPhase {
    fn name(self) -> &'static str {
        match self {
            Self::Added => "not started",
            Self::Running => "running",
            Self::Stopped(_) => "stopped",
        }
    }
}

impl<E: Execution> Execs<E> {
    pub(crate) fn new() -> Self {
        Self(std::sync::Mutex::default())
    }

    /// Takes note of one that is to be started.
    pub(crate) fn add(&self, task: &str, request: ExecRequest, events: &dyn Publish) -> Result<(), Error> {
        let mut execs = self.lock();
        let Entry::Vacant(slot) = execs.entry(request.id.clone()) else { return Err(Error::Exists(request.id)) };
        let event =
            TaskExecAdded { container_id: task.to_owned(), exec_id: request.id.clone(), ..TaskExecAdded::default() };
        slot.insert(Arc::new(Exec {
            task: task.to_owned(),
            request,
            phase: Mutex::new(ExecPhase::Added),
            process: OnceLock::new(),
            unwanted: watch::Sender::new(false),
            exit: watch::Sender::new(None),
        }));
        publish(events, event);
        Ok(())
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<Exec<E>>, Error> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// Those that run, by their process ids.
    pub(crate) fn pids(&self) -> HashMap<u32, String> {
        self.lock().values().filter(|exec| exec.runs()).map(|exec| (exec.pid(), exec.request.id.clone())).collect()
    }

    /// Waits for the end of those that run.
    pub(crate) async fn ended(&self) {
        let running: Vec<_> = self.lock().values().filter(|exec| exec.runs()).cloned().collect();
        for exec in running {
            let _ = exec.wait().await;
        }
    }

    /// Removes one that does not run. Returns its pid and how it ended. One that is still being started is given up.
    pub(crate) async fn delete(&self, id: &str) -> Result<(u32, Exit), Error> {
        let exec = self.get(id)?;
        exec.unwanted.send_replace(true);
        let exit = match *exec.phase.lock().await {
            ExecPhase::Stopped(exit) => exit,
            ExecPhase::Added => Exit { status: 0, at: SystemTime::now() },
            phase @ ExecPhase::Running => return Err(exec.wrong_phase(phase, "kill it before deleting it")),
        };
        self.lock().remove(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        Ok((exec.pid(), exit))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Exec<E>>>> {
        // Nothing that holds it can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Execution> Exec<E> {
    /// Starts it in its container. Returns its pid.
    pub(crate) async fn start<S: Sandbox<Execution = E>>(
        self: &Arc<Self>,
        sandbox: &S,
        events: &Arc<dyn Publish>,
    ) -> Result<u32, Error> {
        let mut phase = self.phase.lock().await;
        if *phase != ExecPhase::Added {
            return Err(self.wrong_phase(*phase, "it can be started once"));
        }
        let process = match sandbox.exec(&self.request, self.unwanted.subscribe()).await {
            Ok(process) => self.process.get_or_init(|| process),
            Err(error) => {
                let exit = Exit { status: NOT_STARTED, at: SystemTime::now() };
                *phase = ExecPhase::Stopped(exit);
                self.exit.send_replace(Some(exit));
                return Err(error);
            }
        };
        *phase = ExecPhase::Running;
        let event = TaskExecStarted {
            container_id: self.task.clone(),
            exec_id: self.request.id.clone(),
            pid: process.pid(),
            ..TaskExecStarted::default()
        };
        publish(&**events, event);
        // The exit waits for the lock, so that it is published after the start.
        tokio::spawn(watch_exit(Arc::clone(self), Arc::clone(events)));
        Ok(process.pid())
    }

    /// Sends a signal.
    pub(crate) fn kill(&self, signal: u32) -> Result<(), Error> {
        match self.process.get() {
            Some(process) if self.exit.borrow().is_none() => process.kill(signal),
            Some(_) => Err(Error::Finished),
            None if self.exit.borrow().is_some() => Err(Error::Finished),
            None => Err(self.wrong_phase(ExecPhase::Added, "start it first")),
        }
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Result<Exit, Error> {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).ok_or_else(|| Error::NotFound(self.request.id.clone()))
    }

    pub(crate) async fn phase(&self) -> ExecPhase {
        *self.phase.lock().await
    }

    /// Zero before its start.
    pub(crate) fn pid(&self) -> u32 {
        self.process.get().map_or(0, Execution::pid)
    }

    pub(crate) fn stdio(&self) -> &StdioPaths {
        &self.request.stdio
    }

    pub(crate) fn terminal(&self) -> bool {
        self.request.terminal
    }

    pub(crate) fn close_stdin(&self) {
        if let Some(process) = self.process.get() {
            process.close_stdin();
        }
    }

    pub(crate) fn resize(&self, size: Size) -> Result<(), Error> {
        match self.process.get() {
            Some(process) => process.resize(size),
            None => Err(self.wrong_phase(ExecPhase::Added, "start it first")),
        }
    }

    fn runs(&self) -> bool {
        self.process.get().is_some() && self.exit.borrow().is_none()
    }

    fn wrong_phase(&self, phase: ExecPhase, needs: &'static str) -> Error {
        Error::WrongPhase { what: "process", id: self.request.id.clone(), phase: phase.name(), needs }
    }
}

async fn watch_exit<E: Execution>(exec: Arc<Exec<E>>, events: Arc<dyn Publish>) {
    let Some(process) = exec.process.get() else { return };
    let exit = process.exited().await;
    let mut phase = exec.phase.lock().await;
    *phase = ExecPhase::Stopped(exit);
    let event = TaskExit {
        container_id: exec.task.clone(),
        id: exec.request.id.clone(),
        pid: process.pid(),
        exit_status: exit.status,
        exited_at: Some(timestamp(exit)).into(),
        ..TaskExit::default()
    };
    publish(&*events, event);
    exec.exit.send_replace(Some(exit));
}
