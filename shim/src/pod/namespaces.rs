//! A pod's namespaces, held by a thread of the daemon's.
//!
//! Containers join them by a path in `/proc`, which takes a thread's id as well as a process's. The daemon's other threads
//! stay in the host's, and so do the runners, which those start; a thread costs a few pages, and when the daemon ends,
//! however it does, nothing is left of it or of them.
//!
//! A PID namespace is its first process, and lives as long as that does. Only pods whose containers share one
//! (`shareProcessNamespace`) have a process for it: this program again, with [`super::init`] in place of `main`. The thread
//! starts it, in all of the pod's namespaces, and waits for its end.

use std::{
    env,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::{LinkNameSpaceType, gettid, move_into_link_name_space},
};

use super::{init, sysctls::Sysctl};
use crate::{error::Error, executable::Executable};

/// Bytes of the thread's stack, of which it touches little.
const STACK: usize = 256 << 10;

/// Which namespaces a pod has of its own, and what is set in them.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// A file of the network namespace to join.
    pub(crate) network: Option<PathBuf>,
    /// Whether to make an IPC namespace.
    pub(crate) ipc: bool,
    /// `Some` makes a UTS namespace; an empty name leaves the host's.
    pub(crate) hostname: Option<String>,
    /// Whether to make a PID namespace.
    pub(crate) processes: bool,
    pub(crate) sysctls: Vec<Sysctl>,
}

/// A pod's namespaces, as long as this lives.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pid: u32,
    release: Option<Release>,
    thread: Option<JoinHandle<()>>,
}

/// What ends the thread.
#[derive(Debug)]
enum Release {
    /// It waits until this is closed.
    Thread(#[allow(dead_code, reason = "to be dropped")] mpsc::Sender<()>),
    /// It waits for this process, which waits until its input is closed.
    Process(OwnedFd, #[allow(dead_code, reason = "to be dropped")] ChildStdin),
}

impl Namespaces {
    /// Makes them. `ended` is called if they end before they are dropped, or when they are.
    pub(crate) fn hold(wanted: Wanted, ended: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let (answer, made) = mpsc::channel();
        let held = move || {
            let answered = |made: Result<(u32, Release), Error>| drop(answer.send(made));
            match enter(&wanted).and_then(|()| wanted.processes.then(first_process).transpose()) {
                Err(error) => answered(Err(error)),
                Ok(None) => {
                    let (release, released) = mpsc::channel();
                    answered(Ok((gettid().as_raw_nonzero().get().unsigned_abs(), Release::Thread(release))));
                    // It never gets anything.
                    let _ = released.recv();
                    ended();
                }
                Ok(Some(First { mut process, handle, input })) => {
                    answered(Ok((process.id(), Release::Process(handle, input))));
                    match process.wait() {
                        Ok(status) if status.signal() == Some(nix::libc::SIGKILL) => {}
                        other => log::warn!("the pod's first process ended: {other:?}"),
                    }
                    ended();
                }
            }
        };
        let thread = thread::Builder::new().name("pod".to_owned()).stack_size(STACK).spawn(held);
        let thread = thread.map_err(Error::system("start the thread that holds the pod's namespaces"))?;
        let gone = || Error::system("make the pod's namespaces")(io::Error::other("their thread died"));
        let (pid, release) = made.recv().map_err(|_| gone())??;
        Ok(Self { pid, release: Some(release), thread: Some(thread) })
    }

    /// Whose namespaces in `/proc` these are: a process's or a thread's.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        match self.release.take() {
            Some(Release::Process(handle, _input)) => {
                // It may have ended. It would end by itself as soon as its input is closed; this leaves no trace in the
                // kernel's log.
                let _ = pidfd_send_signal(&handle, Signal::KILL);
            }
            Some(Release::Thread(_)) | None => {}
        }
        if let Some(thread) = self.thread.take() {
            // It panics on nothing.
            let _ = thread.join();
        }
    }
}

/// Puts the calling thread into the pod's namespaces, and what it starts into the pod's PID namespace.
fn enter(wanted: &Wanted) -> Result<(), Error> {
    if let Some(path) = &wanted.network {
        let open = File::open(path).map_err(Error::system("open the pod's network namespace"))?;
        move_into_link_name_space(open.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(Error::system("enter the pod's network namespace"))?;
    }
    let mut own = CloneFlags::empty();
    own.set(CloneFlags::CLONE_NEWIPC, wanted.ipc);
    own.set(CloneFlags::CLONE_NEWUTS, wanted.hostname.is_some());
    own.set(CloneFlags::CLONE_NEWPID, wanted.processes);
    unshare(own).map_err(Error::system("make the pod's namespaces"))?;
    if let Some(name) = wanted.hostname.as_deref().filter(|name| !name.is_empty()) {
        nix::unistd::sethostname(name).map_err(Error::system("set the pod's host name"))?;
    }
    wanted.sysctls.iter().try_for_each(Sysctl::set)
}

/// The first process of the pod's PID namespace.
struct First {
    process: Child,
    handle: OwnedFd,
    input: ChildStdin,
}

/// Starts it. Returns when it is what it is to be.
fn first_process() -> Result<First, Error> {
    let failed = Error::system::<io::Error>("start the first process of the pod's PID namespace");
    // The containers see it, and who may trace processes could open its program.
    let program = env::current_exe().and_then(|path| Executable::shield(&path)).map_err(&failed)?;
    let mut command = Command::new(program.path());
    command
        .arg0(init::NAME)
        .arg(init::ACTION)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command.spawn().map_err(&failed)?;
    let mut ready = || -> io::Result<(OwnedFd, ChildStdin)> {
        let id = Pid::from_raw(process.id().cast_signed()).ok_or_else(|| io::Error::other("no pid"))?;
        let handle = pidfd_open(id, PidfdFlags::empty())?;
        let none = || io::Error::other("no pipe");
        let (input, mut output) = (process.stdin.take().ok_or_else(none)?, process.stdout.take().ok_or_else(none)?);
        let mut byte = [0];
        output.read_exact(&mut byte)?;
        Ok((handle, input))
    };
    // One that could not get ready has ended, or ends here.
    match ready() {
        Ok((handle, input)) => Ok(First { process, handle, input }),
        Err(error) => {
            let _ = process.kill();
            let _ = process.wait();
            Err(failed(error))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fs,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::*;

    fn link(task: impl std::fmt::Display, kind: &str) -> PathBuf {
        fs::read_link(format!("/proc/{task}/ns/{kind}")).unwrap()
    }

    fn none() -> Wanted {
        Wanted { network: None, ipc: false, hostname: None, processes: false, sysctls: Vec::new() }
    }

    #[test]
    fn a_pod_has_what_is_its_own_and_nobody_else_has() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: making namespaces takes root");
            return;
        }
        let ended = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&ended);
        let wanted = Wanted { ipc: true, hostname: Some("box".to_owned()), ..none() };
        let before = ["ipc", "uts", "net"].map(|kind| link("thread-self", kind));
        let held = Namespaces::hold(wanted, move || tell.store(true, Ordering::SeqCst)).unwrap();
        let theirs = ["ipc", "uts", "net"].map(|kind| link(held.pid(), kind));
        assert_ne!(theirs[0], before[0]);
        assert_ne!(theirs[1], before[1]);
        assert_eq!(theirs[2], before[2], "the host's network");
        assert_eq!(["ipc", "uts", "net"].map(|kind| link("thread-self", kind)), before, "the daemon's own");
        assert!(!ended.load(Ordering::SeqCst));
        let pid = held.pid();
        drop(held);
        assert!(ended.load(Ordering::SeqCst));
        assert!(!fs::exists(format!("/proc/{pid}/ns")).unwrap(), "the thread");
    }

    #[test]
    fn a_network_that_is_not_there_is_an_error() {
        let wanted = Wanted { network: Some("/nonexistent/net".into()), ..none() };
        let error = Namespaces::hold(wanted, || {}).unwrap_err().to_string();
        assert!(error.starts_with("open the pod's network namespace"), "{error}");
    }
}
