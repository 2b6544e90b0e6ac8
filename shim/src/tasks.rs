//! The task state machine: which call is right in which phase, and which event follows which.
//!
//! ```text
//! (reserved) ─▶ Created ─▶ Running ─▶ Stopped ─▶ (gone)
//!                   └──────────────────▲
//! ```
//!
//! **Invariants.** An id is reserved before anything is awaited. A phase changes only under its lock, and an event is
//! published under the same lock, after the change: Start never comes after Exit, nor Exit after Delete.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use containerd_shim::util::convert_to_timestamp;
use containerd_shim_protos::{
    events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart},
    protobuf::well_known_types::{any::Any, timestamp::Timestamp},
};
use tokio::sync::{Mutex, watch};

use crate::{
    error::Error,
    events::{Publish, publish},
    sandbox::{CreateRequest, Exit, Launcher, Sandbox},
    stdio::StdioPaths,
};

/// How long the end of an init that could not start is waited for.
const UNSTARTED: Duration = Duration::from_secs(2);

/// All tasks of a pod.
pub(crate) struct Tasks<L: Launcher> {
    launcher: L,
    events: Arc<dyn Publish>,
    slots: std::sync::Mutex<HashMap<String, Slot<L::Sandbox>>>,
}

enum Slot<S> {
    Reserved,
    Task(Arc<Task<S>>),
}

/// One container's task.
pub(crate) struct Task<S> {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) stdio: StdioPaths,
    pub(crate) sandbox: S,
    phase: Mutex<Phase>,
    exit: watch::Sender<Option<Exit>>,
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running,
    Stopped(Exit),
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
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
        let sandbox = self.launcher.create(&request).await?;
        let pid = sandbox.pid();
        let CreateRequest { id, bundle, rootfs, stdio, .. } = request;
        let task = Arc::new(Task {
            id: id.clone(),
            bundle: bundle.clone(),
            stdio: stdio.clone(),
            sandbox,
            phase: Mutex::new(Phase::Created),
            exit: watch::Sender::new(None),
        });
        // The exit waits for this lock, so that it is published after the creation.
        let phase = task.phase.lock().await;
        reservation.fill(Arc::clone(&task));
        tokio::spawn(watch_exit(Arc::clone(&task), Arc::clone(&self.events)));
        let io = TaskIO { stdin: stdio.stdin, stdout: stdio.stdout, stderr: stdio.stderr, ..TaskIO::default() };
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

    /// Sends a signal. Takes no lock: what hangs in its start must be killable.
    pub(crate) fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let task = self.get(id)?;
        if task.exit.borrow().is_some() {
            return Err(Error::Finished);
        }
        task.sandbox.kill(signal, all)
    }

    /// Waits for the end of a task.
    pub(crate) async fn wait(&self, id: &str) -> Result<Exit, Error> {
        let task = self.get(id)?;
        let mut exit = task.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await;
        ended.ok().and_then(|exit| *exit).ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// Removes a stopped task, or one that was never started. Returns its pid and how it ended.
    pub(crate) async fn delete(&self, id: &str) -> Result<(u32, Exit), Error> {
        let task = self.get(id)?;
        let phase = *task.phase.lock().await;
        let exit = match phase {
            Phase::Stopped(exit) => exit,
            Phase::Created => {
                // The init waits for a start that never comes.
                let _ = task.sandbox.kill(nix::libc::SIGKILL.unsigned_abs(), false);
                self.wait(id).await?
            }
            Phase::Running => return Err(task.wrong_phase(phase, "kill it before deleting it")),
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

    pub(crate) fn pids(&self, id: &str) -> Result<Vec<u32>, Error> {
        self.get(id)?.sandbox.pids()
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
            Some(Slot::Reserved) | None => Err(Error::NotFound(id.to_owned())),
        }
    }

    fn reserve<'a>(&'a self, id: &str) -> Result<Reservation<'a, L>, Error> {
        match self.lock().entry(id.to_owned()) {
            std::collections::hash_map::Entry::Occupied(_) => Err(Error::Exists(id.to_owned())),
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Slot::Reserved);
                Ok(Reservation { tasks: self, id: Some(id.to_owned()) })
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Slot<L::Sandbox>>> {
        // Nothing that holds it can panic half-way through a change.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Task<S> {
    fn wrong_phase(&self, phase: Phase, needs: &'static str) -> Error {
        Error::WrongPhase { id: self.id.clone(), phase: phase.name(), needs }
    }
}

/// An id that is taken while its sandbox is being built, and free again if that fails.
struct Reservation<'a, L: Launcher> {
    tasks: &'a Tasks<L>,
    id: Option<String>,
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
    let mut phase = task.phase.lock().await;
    *phase = Phase::Stopped(exit);
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

/// When it ended, as containerd writes it.
pub(crate) fn timestamp(exit: Exit) -> Timestamp {
    convert_to_timestamp(Some(exit.at.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::SystemTime,
    };

    use async_trait::async_trait;
    use containerd_shim_protos::protobuf::MessageDyn;
    use lighter_oci::Config;

    use super::*;

    /// Topics in the order in which they were published.
    #[derive(Default)]
    struct Topics(std::sync::Mutex<Vec<String>>);

    impl Publish for Topics {
        fn publish(&self, topic: String, _: Box<dyn MessageDyn>) {
            self.0.lock().unwrap().push(topic);
        }
    }

    /// A sandbox that ends when it is killed, or at once when it is started with the id `short`.
    struct Stub {
        id: String,
        exit: watch::Sender<Option<Exit>>,
        removed: Arc<AtomicBool>,
    }

    #[derive(Default)]
    struct Stubs {
        removed: Arc<AtomicBool>,
    }

    fn ended(status: u32) -> Exit {
        Exit { status, at: SystemTime::UNIX_EPOCH }
    }

    #[async_trait]
    impl Launcher for Stubs {
        type Sandbox = Stub;
        async fn create(&self, request: &CreateRequest) -> Result<Stub, Error> {
            tokio::task::yield_now().await;
            match request.id.as_str() {
                "bad" => Err(lighter_launch::Error::Guest("no such thing".to_owned()).into()),
                id => {
                    Ok(Stub { id: id.to_owned(), exit: watch::Sender::new(None), removed: Arc::clone(&self.removed) })
                }
            }
        }
    }

    #[async_trait]
    impl Sandbox for Stub {
        fn pid(&self) -> u32 {
            42
        }
        async fn start(&self) -> Result<(), Error> {
            if self.id == "short" {
                self.exit.send_replace(Some(ended(0)));
                // The exit is seen before the start is through.
                tokio::task::yield_now().await;
            }
            if self.id == "unstartable" {
                self.exit.send_replace(Some(ended(255)));
                return Err(lighter_launch::Error::Guest("seal".to_owned()).into());
            }
            Ok(())
        }
        async fn exited(&self) -> Exit {
            self.exit.subscribe().wait_for(Option::is_some).await.unwrap().unwrap()
        }
        fn kill(&self, signal: u32, _: bool) -> Result<(), Error> {
            self.exit.send_replace(Some(ended(128 + signal)));
            Ok(())
        }
        fn pids(&self) -> Result<Vec<u32>, Error> {
            Ok(vec![42])
        }
        fn stats(&self) -> Result<Any, Error> {
            Ok(Any::new())
        }
        fn close_stdin(&self) {}
        async fn remove(&self) -> Result<(), Error> {
            self.removed.store(true, Ordering::SeqCst);
            Ok(())
        }
    }

    fn request(id: &str) -> CreateRequest {
        CreateRequest {
            id: id.to_owned(),
            bundle: PathBuf::from("/bundle"),
            rootfs: Vec::new(),
            stdio: StdioPaths::default(),
            options: Config::default(),
        }
    }

    fn tasks() -> (Arc<Tasks<Stubs>>, Arc<Topics>) {
        let topics = Arc::new(Topics::default());
        (Tasks::new(Stubs::default(), Arc::clone(&topics) as Arc<dyn Publish>), topics)
    }

    fn seen(topics: &Topics) -> Vec<String> {
        topics.0.lock().unwrap().iter().map(|t| t.trim_start_matches("/tasks/").to_owned()).collect()
    }

    #[tokio::test]
    async fn a_life_and_its_events() {
        let (tasks, topics) = tasks();
        assert_eq!(tasks.create(request("a")).await.unwrap(), 42);
        assert_eq!(tasks.start("a").await.unwrap(), 42);
        tasks.kill("a", 15, false).unwrap();
        assert_eq!(tasks.wait("a").await.unwrap().status, 143);
        assert_eq!(tasks.delete("a").await.unwrap().1.status, 143);
        assert_eq!(seen(&topics), ["create", "start", "exit", "delete"]);
        assert!(tasks.launcher.removed.load(Ordering::SeqCst));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn an_exit_never_overtakes_its_start() {
        let (tasks, topics) = tasks();
        tasks.create(request("short")).await.unwrap();
        tasks.start("short").await.unwrap();
        assert_eq!(tasks.wait("short").await.unwrap().status, 0);
        assert_eq!(seen(&topics), ["create", "start", "exit"]);
    }

    #[tokio::test]
    async fn many_wait_for_one_end() {
        let (tasks, _) = tasks();
        tasks.create(request("a")).await.unwrap();
        tasks.start("a").await.unwrap();
        let waiters: Vec<_> = (0..50)
            .map(|_| {
                let tasks = Arc::clone(&tasks);
                tokio::spawn(async move { tasks.wait("a").await.unwrap().status })
            })
            .collect();
        tokio::task::yield_now().await;
        tasks.kill("a", 9, true).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 137);
        }
        assert_eq!(tasks.wait("a").await.unwrap().status, 137, "one who comes late is told as well");
    }

    #[tokio::test]
    async fn a_failed_creation_frees_the_id_and_two_at_once_do_not_share_one() {
        let (tasks, topics) = tasks();
        for _ in 0..2 {
            assert!(matches!(tasks.create(request("bad")).await, Err(Error::Launch(lighter_launch::Error::Guest(_)))));
        }
        let (first, second) = tokio::join!(tasks.create(request("a")), tasks.create(request("a")));
        assert!(first.is_ok());
        assert!(matches!(second, Err(Error::Exists(_))));
        assert_eq!(seen(&topics), ["create"]);
    }

    #[tokio::test]
    async fn calls_in_the_wrong_phase_say_so() {
        let (tasks, topics) = tasks();
        assert!(matches!(tasks.start("a").await, Err(Error::NotFound(_))));
        tasks.create(request("a")).await.unwrap();
        tasks.start("a").await.unwrap();
        assert!(matches!(tasks.start("a").await, Err(Error::WrongPhase { .. })));
        assert!(matches!(tasks.delete("a").await, Err(Error::WrongPhase { .. })));
        tasks.kill("a", 9, false).unwrap();
        tasks.wait("a").await.unwrap();
        assert!(matches!(tasks.kill("a", 9, false), Err(Error::Finished)));
        assert!(matches!(tasks.stats("a").await, Err(Error::WrongPhase { .. })));
        tasks.delete("a").await.unwrap();
        assert!(matches!(tasks.delete("a").await, Err(Error::NotFound(_))));

        tasks.create(request("never started")).await.unwrap();
        assert_eq!(tasks.delete("never started").await.unwrap().1.status, 137);
        tasks.create(request("unstartable")).await.unwrap();
        assert!(matches!(tasks.start("unstartable").await, Err(Error::Launch(lighter_launch::Error::Guest(_)))));
        assert_eq!(tasks.wait("unstartable").await.unwrap().status, 255);
        let starts = seen(&topics).iter().filter(|t| *t == "start").count();
        assert_eq!(starts, 1, "what failed to start is not reported as started");
    }
}
