//! Runner processes: `lighter-ENGINE create` and `exec`, with the plan and the guest's streams on inherited descriptors.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use command_fds::{CommandFdExt, FdMapping};
use lighter_oci::Plan;
use lighter_runtime_api::protocol::{ExecPlan, FD_BOUND, FD_STATUS, FD_STDERR, FD_STDIN, FD_STDOUT, Status};
use rustix::process::Signal;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    sync::Mutex,
};

use crate::{Child, Error, Exit, loading};

/// libcontainer's socket in a container's state folder: connecting to it is the start signal.
const START_SOCKET: &str = "notify.sock";

/// The guest's standard streams: its ends, handed over as they are.
#[derive(Debug)]
pub struct GuestStdio {
    /// Open for reading.
    pub stdin: OwnedFd,
    /// Open for writing.
    pub stdout: OwnedFd,
    /// Open for writing.
    pub stderr: OwnedFd,
}

/// What a guest inherits from who launches it.
#[derive(Debug)]
pub struct Inherited {
    /// Its streams.
    pub stdio: GuestStdio,
    /// The page of its [`MemoryBound`](lighter_runtime_api::MemoryBound), open for reading; nothing where that is its plan's
    /// for ever.
    pub bound: Option<OwnedFd>,
}

/// A runner at work.
#[derive(Debug)]
pub struct Runner {
    process: Child,
    status: StdUnixStream,
    /// What it writes to its standard error: the causes that libcontainer only traces.
    said: File,
    /// The folder of the container's start socket.
    state: PathBuf,
}

/// A container's init. It waits for [`Init::start`], then it is the guest.
#[derive(Debug)]
pub struct Init {
    process: Child,
    status: Mutex<BufReader<UnixStream>>,
    state: PathBuf,
}

impl Runner {
    /// Starts `path create` for this plan. The runner has an empty environment and `/` as its working directory.
    ///
    /// # Errors
    /// The executable can't be run, or a system call failed.
    pub fn spawn(path: &Path, plan: &Plan, guest: Inherited) -> Result<Self, Error> {
        Self::run(path, "create", plan, plan.state.join(&plan.id), guest)
    }

    /// Starts `path exec` for a process that joins a container.
    ///
    /// # Errors
    /// As for [`Self::spawn`].
    pub fn spawn_exec(path: &Path, exec: &ExecPlan, guest: Inherited) -> Result<Self, Error> {
        Self::run(path, "exec", exec, exec.plan.state.join(&exec.plan.id), guest)
    }

    fn run(path: &Path, action: &str, plan: &impl Serialize, state: PathBuf, guest: Inherited) -> Result<Self, Error> {
        let Inherited { stdio: guest, bound } = guest;
        let (ours, theirs) = StdUnixStream::pair().map_err(Error::system("make status stream"))?;
        ours.set_nonblocking(true).map_err(Error::system("make status stream"))?;
        let json = serde_json::to_vec(plan).map_err(|error| Error::system("encode plan")(io::Error::from(error)))?;
        let said = memory_file("diagnostics", &[])?;
        let mapping = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
        let mut mappings = vec![
            mapping(theirs.into(), FD_STATUS),
            mapping(guest.stdin, FD_STDIN),
            mapping(guest.stdout, FD_STDOUT),
            mapping(guest.stderr, FD_STDERR),
        ];
        mappings.extend(bound.map(|bound| mapping(bound, FD_BOUND)));
        let mut command = Command::new(path);
        command
            .arg(action)
            .env_clear()
            .current_dir("/")
            .stdin(memory_file("plan", &json)?)
            .stdout(Stdio::null())
            .stderr(said.try_clone().map_err(Error::system("make diagnostics"))?)
            .fd_mappings(mappings)
            .map_err(|error| Error::system("map descriptors")(io::Error::other(error)))?;
        let child = command.spawn().map_err(|source| Error::RunRunner { path: path.to_owned(), source })?;
        let process = Child::new(child.id().cast_signed())?;
        Ok(Self { process, status: ours, said, state })
    }

    /// Waits until the sandbox stands, and for the runner's end.
    ///
    /// # Errors
    /// [`Error::Guest`] with what is wrong with the image or the host, [`Error::RunnerDied`] if it can't tell any more.
    pub async fn created(&self) -> Result<Init, Error> {
        let (process, status) = self.answer().await?;
        Ok(Init { process, status: Mutex::new(status), state: self.state.clone() })
    }

    /// Waits until the process that was to join a container runs its program, and for the runner's end.
    ///
    /// # Errors
    /// As for [`Self::created`] and [`Init::start`].
    pub async fn joined(&self) -> Result<Child, Error> {
        let (process, mut status) = self.answer().await?;
        if let Err(error) = running(&mut status).await {
            // It ends by itself; nobody else will reap it.
            let _ = process.kill(Signal::KILL);
            process.exited().await;
            return Err(error);
        }
        Ok(process)
    }

    /// The process that the runner has forked.
    async fn answer(&self) -> Result<(Child, BufReader<UnixStream>), Error> {
        let status = self.status.try_clone().and_then(UnixStream::from_std);
        let mut status = BufReader::new(status.map_err(Error::system("watch status stream"))?);
        let answer = next_status(&mut status).await;
        // Before the runner ends and the init becomes ours to reap.
        let init = match &answer {
            Ok(Some(Status::Created { pid, .. })) => Some(Child::new(*pid)?),
            _ => None,
        };
        let ended = self.process.exited().await;
        match (answer?, init) {
            (Some(Status::Created { notes, background, .. }), Some(process)) => {
                notes.iter().for_each(|note| log::info!("{note}"));
                if let Some(pid) = background {
                    watch(pid);
                }
                Ok((process, status))
            }
            (Some(Status::Failed { message }), _) => Err(Error::Guest(with_details(message, &innermost(&self.said)))),
            (Some(Status::Created { .. } | Status::Started | Status::Executing) | None, _) => {
                let said = everything(&self.said);
                Err(match loading::explain(ended.status, &said) {
                    Some(why) => Error::Libraries(why),
                    None => {
                        Error::RunnerDied { status: ended.status, said: with_details(String::new(), first_line(&said)) }
                    }
                })
            }
        }
    }

    /// Sends it a signal, which ends it and what it has built so far.
    ///
    /// # Errors
    /// [`Error::Finished`] if it has ended.
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        self.process.kill(signal)
    }
}

impl Init {
    /// Its process id, as this process sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets the guest run. Returns when its first instruction is next.
    ///
    /// # Errors
    /// [`Error::Guest`] with what kept the guest from starting, [`Error::InitDied`] if the init was killed.
    pub async fn start(&self) -> Result<(), Error> {
        let mut status = self.status.lock().await;
        signal_start(&self.state)?;
        running(&mut status).await
    }

    /// Waits for its end and reaps it.
    pub async fn exited(&self) -> Exit {
        self.process.exited().await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Error::Finished`] if it has ended.
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        self.process.kill(signal)
    }
}

/// Waits until a guest's first instruction is next.
async fn running(status: &mut BufReader<UnixStream>) -> Result<(), Error> {
    match next_status(status).await? {
        Some(Status::Started) => Ok(()),
        Some(Status::Executing) => match next_status(status).await? {
            // An exec closes the stream. Whoever was killed in this very moment was started, too.
            None => Ok(()),
            Some(Status::Failed { message }) => Err(Error::Guest(message)),
            Some(Status::Created { .. } | Status::Started | Status::Executing) => Err(Error::InitDied),
        },
        Some(Status::Failed { message }) => Err(Error::Guest(message)),
        Some(Status::Created { .. }) | None => Err(Error::InitDied),
    }
}

/// Reaps the process that compiles in the background, whenever that is. The runner that started it has ended.
fn watch(pid: u32) {
    // It may be over, or somebody else's child.
    let Ok(compiler) = Child::new(pid.cast_signed()) else { return };
    tokio::spawn(async move {
        let end = compiler.exited().await;
        if end.status != 0 {
            log::warn!("making optimised code failed with exit code {}; the next start tries again later", end.status);
        }
    });
}

/// A file without a name, at its start.
pub(crate) fn memory_file(name: &str, bytes: &[u8]) -> Result<File, Error> {
    let failed = Error::system::<io::Error>("make memory file");
    let name = CString::new(name).map_err(|error| failed(error.into()))?;
    let fd = rustix::fs::memfd_create(&*name, rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

/// The next line, or `None` where the other side ended without one.
async fn next_status(stream: &mut BufReader<UnixStream>) -> Result<Option<Status>, Error> {
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(0) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(Error::system("read status")(error)),
        Ok(_) => serde_json::from_str(&line).map(Some).map_err(|e| Error::system("read status")(io::Error::from(e))),
    }
}

/// Connects to libcontainer's start socket. By descriptor: a folder's path may be longer than a socket's name may be.
fn signal_start(state: &Path) -> Result<(), Error> {
    let folder = File::open(state).map_err(Error::system("open container state"))?;
    let socket = format!("/proc/self/fd/{}/{START_SOCKET}", folder.as_raw_fd());
    // The init, which nobody but us starts, waits in accept; it reads until we close.
    let mut stream = StdUnixStream::connect(socket).map_err(Error::system("signal start"))?;
    stream.write_all(b"start container").map_err(Error::system("signal start"))
}

/// The first line of a runner's diagnostics, which is the innermost cause that libcontainer traced.
fn innermost(said: &File) -> String {
    first_line(&everything(said)).to_owned()
}

fn first_line(said: &str) -> &str {
    said.lines().find(|line| !line.is_empty()).unwrap_or_default()
}

/// A runner's diagnostics.
fn everything(mut said: &File) -> String {
    let mut text = String::new();
    match said.rewind().and_then(|()| said.read_to_string(&mut text)) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

fn with_details(message: String, details: &str) -> String {
    if details.is_empty() || message.contains(details) { message } else { format!("{message} ({details})") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_diagnostics_is_told_once() {
        let said = memory_file("diagnostics", b"\nmount: EPERM\nrootfs\n").unwrap();
        assert_eq!(innermost(&said), "mount: EPERM");
        assert_eq!(with_details("build sandbox".to_owned(), &innermost(&said)), "build sandbox (mount: EPERM)");
        assert_eq!(with_details("failed: mount: EPERM".to_owned(), &innermost(&said)), "failed: mount: EPERM");
        assert_eq!(with_details("failed".to_owned(), ""), "failed");
    }
}
