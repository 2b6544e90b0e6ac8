//! The task state machine: which call is right in which phase, and which event follows which.
//!
//! ```text
//! (reserved) ─▶ Created ─▶ Running ◀─▶ Paused
//!                  │          ▼           │
//!                  └──────▶ Stopped ◀─────┘ ─▶ (gone)
//! ```
//!
//! **Invariants.** An id is reserved before anything is awaited. A phase changes only under its lock, and an event is
//! published under the same lock, after the change: Start never comes after Exit, nor Exit after Delete. The processes
//! that were added to a task end, and are published, before its init.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use containerd_shim::util::convert_to_timestamp;
use containerd_shim_protos::{
    events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskOOM, TaskPaused, TaskResumed, TaskStart},
    protobuf::well_known_types::{any::Any, timestamp::Timestamp},
};
use nix::libc;
use oci_spec::runtime::LinuxResources;
use tokio::sync::{Mutex, watch};

use crate::{
    error::Error,
    events::{Publish, publish},
    execs::{Exec, Execs},
    sandbox::{CreateRequest, ExecRequest, Exit, Launcher, Sandbox, Unwanted},
    stdio::StdioPaths,
};

/// How long the end of an init that could not start is waited for.
const UNSTARTED: Duration = Duration::from_secs(2);
/// How long the processes beside an init that has ended are waited for: the kernel ends them with it.
const LAST: Duration = Duration::from_secs(2);

/// All tasks of a pod.
pub(crate) struct Tasks<L: Launcher> {
    launcher: L,
    events: Arc<dyn Publish>,
    slots: std::sync::Mutex<HashMap<String, Slot<L::Sandbox>>>,
}

enum Slot<S: Sandbox> {
    /// Its sandbox is being built, unless this turns true.
    Reserved(watch::Sender<bool>),
    Task(Arc<Task<S>>),
}

/// A process that was added to a sandbox of this kind.
pub(crate) type ExecOf<S> = Exec<<S as Sandbox>::Execution>;

/// One container's task.
pub(crate) struct Task<S: Sandbox> {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) stdio: StdioPaths,
    pub(crate) terminal: bool,
    pub(crate) sandbox: S,
    execs: Execs<S::Execution>,
    phase: Mutex<Phase>,
    exit: watch::Sender<Option<Exit>>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running,
    Paused,
    Stopped(Exit),
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped(_) => "stopped",
        }
    }
}

impl<L: Launcher> Tasks<L> {
    pub(crate) fn new(launcher: L, events: Arc<dyn Publish>) -> Arc<Self> {
        Arc::new(Self { launcher, events, slots: std::sync::Mutex::default() })
    }

    /// Creates a task. Returns its init's pid.
    pub(crate) async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<u32, Error> {
        let reservation = self.reserve(&request.id)?;
        let sandbox = self.launcher.create(&request, reservation.unwanted.clone()).await?;
        let pid = sandbox.pid();
        let CreateRequest { id, bundle, rootfs, stdio, terminal, .. } = request;
        let task = Arc::new(Task {
            id: id.clone(),
            bundle: bundle.clone(),
            stdio: stdio.clone(),
            terminal,
            sandbox,
            execs: Execs::new(),
            phase: Mutex::new(Phase::Created),
            exit: watch::Sender::new(None),
        });
        // The exit waits for this lock, so that it is published after the creation.
        let phase = task.phase.lock().await;
        reservation.fill(Arc::clone(&task));
        tokio::spawn(watch_exit(Arc::clone(&task), Arc::clone(&self.events)));
        tokio::spawn(watch_memory(Arc::clone(&task), Arc::clone(&self.events)));
        let io =
            TaskIO { stdin: stdio.stdin, stdout: stdio.stdout, stderr: stdio.stderr, terminal, ..TaskIO::default() };
        let event = TaskCreate {
            container_id: id,
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs,
            io: Some(io).into(),
            pid,
            ..TaskCreate::default()
        };
        publish(&*self.events, event);
        drop(phase);
        Ok(pid)
    }

    /// Starts a created task. Returns its init's pid.
    pub(crate) async fn start(&self, id: &str) -> Result<u32, Error> {
        let task = self.get(id)?;
        let mut phase = task.phase.lock().await;
        if *phase != Phase::Created {
            return Err(task.wrong_phase(*phase, "only a created task can be started"));
        }
        if let Err(error) = task.sandbox.start().await {
            drop(phase);
            // An init that could not start is at its end. Who is told so, and then asks for its removal, is to find it there.
            let _ = tokio::time::timeout(UNSTARTED, self.wait(id)).await;
            return Err(error);
        }
        *phase = Phase::Running;
        let pid = task.sandbox.pid();
        publish(&*self.events, TaskStart { container_id: task.id.clone(), pid, ..TaskStart::default() });
        Ok(pid)
    }

    /// Adds a process to a task, for [`Self::start_exec`].
    pub(crate) async fn exec(&self, id: &str, request: ExecRequest) -> Result<(), Error> {
        let task = self.get(id)?;
        let phase = task.phase.lock().await;
        match *phase {
            Phase::Created | Phase::Running => task.execs.add(id, request, &*self.events),
            Phase::Paused | Phase::Stopped(_) => Err(Error::NoExec { phase: phase.name() }),
        }
    }

    /// Starts an added process. Returns its pid.
    pub(crate) async fn start_exec(&self, id: &str, exec_id: &str) -> Result<u32, Error> {
        let (task, phase) = self.state(id).await?;
        let exec = task.execs.get(exec_id)?;
        match phase {
            // Not under its lock: a start may take long, and an end must not wait for it.
            Phase::Created | Phase::Running => exec.start(&task.sandbox, &self.events).await,
            Phase::Paused | Phase::Stopped(_) => Err(Error::NoExec { phase: phase.name() }),
        }
    }

    /// An added process.
    pub(crate) fn get_exec(&self, id: &str, exec_id: &str) -> Result<Arc<ExecOf<L::Sandbox>>, Error> {
        self.get(id)?.execs.get(exec_id)
    }

    /// Removes an added process. Returns its pid and how it ended.
    pub(crate) async fn delete_exec(&self, id: &str, exec_id: &str) -> Result<(u32, Exit), Error> {
        self.get(id)?.execs.delete(exec_id).await
    }

    /// Sends a signal. Waits for no lock: what hangs in its start must be killable.
    pub(crate) async fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let task = self.get(id)?;
        if task.exit.borrow().is_some() {
            return Err(Error::Finished);
        }
        task.sandbox.kill(signal, all)?;
        // What stands still in cgroup v1 does not even die.
        let paused = task.phase.try_lock().is_ok_and(|phase| *phase == Phase::Paused);
        if paused && signal == libc::SIGKILL.unsigned_abs() {
            task.sandbox.resume().await?;
        }
        Ok(())
    }

    /// Kills whatever runs, as far as it does, and gives up what is being made.
    pub(crate) fn kill_all(&self) {
        for slot in self.lock().values() {
            match slot {
                Slot::Reserved(unwanted) => drop(unwanted.send_replace(true)),
                Slot::Task(task) => drop(task.sandbox.kill(libc::SIGKILL.unsigned_abs(), true)),
            }
        }
    }

    /// Stops every process of a running task where it is.
    pub(crate) async fn pause(&self, id: &str) -> Result<(), Error> {
        let task = self.get(id)?;
        let mut phase = task.phase.lock().await;
        if *phase != Phase::Running {
            return Err(task.wrong_phase(*phase, "only a running task can be paused"));
        }
        task.sandbox.pause().await?;
        *phase = Phase::Paused;
        publish(&*self.events, TaskPaused { container_id: task.id.clone(), ..TaskPaused::default() });
        Ok(())
    }

    /// Lets a paused task go on.
    pub(crate) async fn resume(&self, id: &str) -> Result<(), Error> {
        let task = self.get(id)?;
        let mut phase = task.phase.lock().await;
        if *phase != Phase::Paused {
            return Err(task.wrong_phase(*phase, "only a paused task can be resumed"));
        }
        task.sandbox.resume().await?;
        *phase = Phase::Running;
        publish(&*self.events, TaskResumed { container_id: task.id.clone(), ..TaskResumed::default() });
        Ok(())
    }

    /// Changes the limits of a task that has not ended.
    pub(crate) async fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        let (task, phase) = self.state(id).await?;
        if matches!(phase, Phase::Stopped(_)) {
            return Err(task.wrong_phase(phase, "only a live task has limits"));
        }
        task.sandbox.update(resources).await
    }

    /// Waits for the end of a task.
    pub(crate) async fn wait(&self, id: &str) -> Result<Exit, Error> {
        let task = self.get(id)?;
        let mut exit = task.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// Removes a stopped task, or one that was never started. Returns its pid and how it ended.
    ///
    /// One that is still being made is given up: containerd asks so when its own client has waited too long.
    pub(crate) async fn delete(&self, id: &str) -> Result<(u32, Exit), Error> {
        if let Some(unwanted) = self.reserved(id) {
            unwanted.send_replace(true);
            unwanted.closed().await;
        }
        let task = self.get(id)?;
        let phase = *task.phase.lock().await;
        let exit = match phase {
            Phase::Stopped(exit) => exit,
            Phase::Created => {
                // The init waits for a start that never comes.
                let _ = task.sandbox.kill(nix::libc::SIGKILL.unsigned_abs(), false);
                self.wait(id).await?
            }
            Phase::Running | Phase::Paused => return Err(task.wrong_phase(phase, "kill it before deleting it")),
        };
        task.sandbox.remove().await?;
        if self.lock().remove(id).is_none() {
            // Somebody deleted it at the same time, and published it.
            return Err(Error::NotFound(id.to_owned()));
        }
        let pid = task.sandbox.pid();
        let event = TaskDelete {
            container_id: task.id.clone(),
            pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..TaskDelete::default()
        };
        publish(&*self.events, event);
        Ok((pid, exit))
    }

    /// A task and its phase.
    pub(crate) async fn state(&self, id: &str) -> Result<(Arc<Task<L::Sandbox>>, Phase), Error> {
        let task = self.get(id)?;
        let phase = *task.phase.lock().await;
        Ok((task, phase))
    }

    /// All processes of a task, each with its name if it was added.
    pub(crate) fn pids(&self, id: &str) -> Result<Vec<(u32, Option<String>)>, Error> {
        let task = self.get(id)?;
        let mut added = task.execs.pids();
        Ok(task.sandbox.pids()?.into_iter().map(|pid| (pid, added.remove(&pid))).collect())
    }

    pub(crate) async fn stats(&self, id: &str) -> Result<Any, Error> {
        let (task, phase) = self.state(id).await?;
        if matches!(phase, Phase::Stopped(_)) {
            return Err(task.wrong_phase(phase, "only a live task has figures"));
        }
        task.sandbox.stats()
    }

    pub(crate) fn close_stdin(&self, id: &str) -> Result<(), Error> {
        self.get(id)?.sandbox.close_stdin();
        Ok(())
    }

    /// Whether the pod has no task left.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn get(&self, id: &str) -> Result<Arc<Task<L::Sandbox>>, Error> {
        match self.lock().get(id) {
            Some(Slot::Task(task)) => Ok(Arc::clone(task)),
            Some(Slot::Reserved(_)) | None => Err(Error::NotFound(id.to_owned())),
        }
    }

    fn reserved(&self, id: &str) -> Option<watch::Sender<bool>> {
        match self.lock().get(id) {
            Some(Slot::Reserved(unwanted)) => Some(unwanted.clone()),
            Some(Slot::Task(_)) | None => None,
        }
    }

    fn reserve<'a>(&'a self, id: &str) -> Result<Reservation<'a, L>, Error> {
        match self.lock().entry(id.to_owned()) {
            std::collections::hash_map::Entry::Occupied(_) => Err(Error::Exists(id.to_owned())),
            std::collections::hash_map::Entry::Vacant(slot) => {
                let (sender, unwanted) = watch::channel(false);
                slot.insert(Slot::Reserved(sender));
                Ok(Reservation { tasks: self, id: Some(id.to_owned()), unwanted })
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot<L::Sandbox>>> {
        // Nothing that holds it can panic half-way through a change.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sandbox> Task<S> {
    fn wrong_phase(&self, phase: Phase, needs: &'static str) -> Error {
        Error::WrongPhase { what: "task", id: self.id.clone(), phase: phase.name(), needs }
    }
}

/// An id that is taken while its sandbox is being built, and free again if that fails.
struct Reservation<'a, L: Launcher> {
    tasks: &'a Tasks<L>,
    id: Option<String>,
    /// Dropped last: who gives it up waits for that.
    unwanted: Unwanted,
}

impl<L: Launcher> Reservation<'_, L> {
    fn fill(mut self, task: Arc<Task<L::Sandbox>>) {
        if let Some(id) = self.id.take() {
            self.tasks.lock().insert(id, Slot::Task(task));
        }
    }
}

impl<L: Launcher> Drop for Reservation<'_, L> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.tasks.lock().remove(&id);
        }
    }
}

async fn watch_exit<S: Sandbox>(task: Arc<Task<S>>, events: Arc<dyn Publish>) {
    let exit = task.sandbox.exited().await;
    if tokio::time::timeout(LAST, task.execs.ended()).await.is_err() {
        log::warn!("a process of {} goes on after its init", task.id);
    }
    let mut phase = task.phase.lock().await;
    *phase = Phase::Stopped(exit);
    tokio::select! {
        biased;
        // Whoever is told of the end asks at once what it was of.
        () = task.sandbox.out_of_memory() => publish_out_of_memory(&task, &*events),
        () = std::future::ready(()) => {}
    }
    let event = TaskExit {
        container_id: task.id.clone(),
        id: task.id.clone(),
        pid: task.sandbox.pid(),
        exit_status: exit.status,
        exited_at: Some(timestamp(exit)).into(),
        ..TaskExit::default()
    };
    publish(&*events, event);
    task.exit.send_replace(Some(exit));
}

/// Tells of what the kernel kills for want of memory, as long as there is anything to kill.
async fn watch_memory<S: Sandbox>(task: Arc<Task<S>>, events: Arc<dyn Publish>) {
    let mut exit = task.exit.subscribe();
    loop {
        tokio::select! {
            () = task.sandbox.out_of_memory() => publish_out_of_memory(&task, &*events),
            _ = exit.wait_for(Option::is_some) => return,
        }
    }
}

fn publish_out_of_memory<S: Sandbox>(task: &Task<S>, events: &dyn Publish) {
    publish(events, TaskOOM { container_id: task.id.clone(), ..TaskOOM::default() });
}

/// When it ended, as containerd writes it.
pub(crate) fn timestamp(exit: Exit) -> Timestamp {
    convert_to_timestamp(Some(exit.at.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
