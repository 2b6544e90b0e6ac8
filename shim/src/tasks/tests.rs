//! The state machine over a stub of a sandbox.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageDyn;
use lighter_oci::Config;

use super::*;
use crate::sandbox::{Execution, Size};

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
    /// Whether the kernel killed something in it.
    killed: Arc<AtomicBool>,
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
    async fn create(&self, request: &CreateRequest, mut unwanted: Unwanted) -> Result<Stub, Error> {
        tokio::task::yield_now().await;
        match request.id.as_str() {
            "slow" => {
                unwanted.wait_for(|unwanted| *unwanted).await.unwrap();
                Err(lighter_launch::Error::Guest("killed".to_owned()).into())
            }
            "bad" => Err(lighter_launch::Error::Guest("no such thing".to_owned()).into()),
            id => Ok(Stub {
                id: id.to_owned(),
                exit: watch::Sender::new(None),
                killed: Arc::new(AtomicBool::new(id == "greedy")),
                removed: Arc::clone(&self.removed),
            }),
        }
    }
}

#[async_trait]
impl Execution for Stub {
    fn pid(&self) -> u32 {
        43
    }
    async fn exited(&self) -> Exit {
        self.exit.subscribe().wait_for(Option::is_some).await.unwrap().unwrap()
    }
    fn kill(&self, signal: u32) -> Result<(), Error> {
        self.exit.send_replace(Some(ended(128 + signal)));
        Ok(())
    }
    fn close_stdin(&self) {}
    fn resize(&self, _: Size) -> Result<(), Error> {
        Ok(())
    }
}

#[async_trait]
impl Sandbox for Stub {
    type Execution = Stub;
    fn pid(&self) -> u32 {
        42
    }
    async fn exec(&self, request: &ExecRequest, mut unwanted: Unwanted) -> Result<Stub, Error> {
        match request.id.as_str() {
            "slow" => {
                unwanted.wait_for(|unwanted| *unwanted).await.unwrap();
                Err(lighter_launch::Error::Guest("killed".to_owned()).into())
            }
            "bad" => Err(lighter_launch::Error::Guest("no such thing".to_owned()).into()),
            id => {
                // The kernel ends it with its container.
                let exit = self.exit.clone();
                Ok(Stub {
                    id: id.to_owned(),
                    exit,
                    killed: Arc::clone(&self.killed),
                    removed: Arc::clone(&self.removed),
                })
            }
        }
    }
    async fn out_of_memory(&self) {
        if !self.killed.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }
    async fn pause(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn resume(&self) -> Result<(), Error> {
        Ok(())
    }
    async fn update(&self, _: &LinuxResources) -> Result<(), Error> {
        Ok(())
    }
    fn resize(&self, _: Size) -> Result<(), Error> {
        Err(Error::NoTerminal(self.id.clone()))
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
        terminal: false,
        options: Config::default(),
    }
}

fn added(id: &str) -> ExecRequest {
    let (process, stdio) = (oci_spec::runtime::Process::default(), StdioPaths::default());
    ExecRequest { id: id.to_owned(), process, stdio, terminal: false }
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
    tasks.kill("a", 15, false).await.unwrap();
    assert_eq!(tasks.wait("a").await.unwrap().status, 143);
    assert_eq!(tasks.delete("a").await.unwrap().1.status, 143);
    assert_eq!(seen(&topics), ["create", "start", "exit", "delete"]);
    assert!(tasks.launcher.removed.load(Ordering::SeqCst));
    assert!(tasks.is_empty());
}

#[tokio::test]
async fn what_takes_too_long_is_given_up_by_its_removal() {
    let (tasks, topics) = tasks();
    let (made, removed) = tokio::join!(tasks.create(request("slow")), async {
        tokio::task::yield_now().await;
        tasks.delete("slow").await
    });
    assert!(made.is_err());
    assert!(matches!(removed, Err(Error::NotFound(_))));
    assert!(tasks.is_empty());

    tasks.create(request("a")).await.unwrap();
    tasks.start("a").await.unwrap();
    tasks.exec("a", added("slow")).await.unwrap();
    let (started, removed) = tokio::join!(tasks.start_exec("a", "slow"), async {
        tokio::task::yield_now().await;
        tasks.delete_exec("a", "slow").await
    });
    assert!(started.is_err());
    assert_eq!(removed.unwrap().1.status, 255);
    assert_eq!(seen(&topics), ["create", "start", "exec-added"]);
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
    tasks.kill("a", 9, true).await.unwrap();
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
    tasks.kill("a", 9, false).await.unwrap();
    tasks.wait("a").await.unwrap();
    assert!(matches!(tasks.kill("a", 9, false).await, Err(Error::Finished)));
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

#[tokio::test]
async fn what_was_added_ends_before_its_task() {
    let (tasks, topics) = tasks();
    tasks.create(request("a")).await.unwrap();
    tasks.start("a").await.unwrap();
    tasks.exec("a", added("e")).await.unwrap();
    assert!(matches!(tasks.exec("a", added("e")).await, Err(Error::Exists(_))));
    let exec = tasks.get_exec("a", "e").unwrap();
    assert!(matches!(exec.kill(9), Err(Error::WrongPhase { .. })));
    assert_eq!(tasks.start_exec("a", "e").await.unwrap(), 43);
    assert!(matches!(tasks.start_exec("a", "e").await, Err(Error::WrongPhase { .. })));
    assert!(matches!(tasks.delete_exec("a", "e").await, Err(Error::WrongPhase { .. })));
    tasks.kill("a", 9, false).await.unwrap();
    assert_eq!(tasks.wait("a").await.unwrap().status, 137);
    assert_eq!(exec.wait().await.unwrap().status, 137);
    assert!(matches!(exec.kill(9), Err(Error::Finished)));
    assert_eq!(tasks.delete_exec("a", "e").await.unwrap().0, 43);
    assert!(matches!(tasks.get_exec("a", "e"), Err(Error::NotFound(_))));
    assert!(matches!(tasks.exec("a", added("f")).await, Err(Error::NoExec { phase: "stopped" })));
    tasks.delete("a").await.unwrap();
    assert_eq!(seen(&topics), ["create", "start", "exec-added", "exec-started", "exit", "exit", "delete"]);
}

#[tokio::test]
async fn what_could_not_be_started_is_there_to_be_removed() {
    let (tasks, topics) = tasks();
    tasks.create(request("a")).await.unwrap();
    tasks.exec("a", added("bad")).await.unwrap();
    assert!(matches!(tasks.start_exec("a", "bad").await, Err(Error::Launch(lighter_launch::Error::Guest(_)))));
    assert_eq!(tasks.get_exec("a", "bad").unwrap().wait().await.unwrap().status, 255);
    assert_eq!(tasks.delete_exec("a", "bad").await.unwrap().1.status, 255);
    assert_eq!(seen(&topics), ["create", "exec-added"]);
}

#[tokio::test]
async fn a_paused_task_does_nothing_until_it_is_resumed() {
    let (tasks, topics) = tasks();
    tasks.create(request("a")).await.unwrap();
    assert!(matches!(tasks.pause("a").await, Err(Error::WrongPhase { .. })));
    tasks.start("a").await.unwrap();
    assert!(matches!(tasks.resume("a").await, Err(Error::WrongPhase { .. })));
    tasks.exec("a", added("e")).await.unwrap();
    tasks.pause("a").await.unwrap();
    assert!(matches!(tasks.exec("a", added("f")).await, Err(Error::NoExec { phase: "paused" })));
    assert!(matches!(tasks.start_exec("a", "e").await, Err(Error::NoExec { phase: "paused" })));
    assert!(matches!(tasks.delete("a").await, Err(Error::WrongPhase { .. })));
    assert!(matches!(tasks.pause("a").await, Err(Error::WrongPhase { .. })));
    tasks.resume("a").await.unwrap();
    tasks.start_exec("a", "e").await.unwrap();
    assert_eq!(seen(&topics), ["create", "start", "exec-added", "paused", "resumed", "exec-started"]);
}

#[tokio::test]
async fn why_it_ended_is_told_before_that_it_did() {
    let (tasks, topics) = tasks();
    tasks.create(request("greedy")).await.unwrap();
    tasks.kill("greedy", 9, false).await.unwrap();
    tasks.wait("greedy").await.unwrap();
    assert_eq!(seen(&topics), ["create", "oom", "exit"]);
}
