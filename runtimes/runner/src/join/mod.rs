//! `exec`: a process that joins a running container.
//!
//! Not by libcontainer's tenants: those run without the container's seccomp profile, and look for a `/proc`, which the seal
//! has taken away. It is libcontainer's single steps, in the order of runc's `setns_init_linux.go`.

mod container;
mod identity;

use std::{
    fs::File,
    io::{self, PipeWriter, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
};

use libcontainer::{syscall::syscall::create_syscall, tty};
use lighter_oci::{Plan, Terminal};
use lighter_runtime_api::{
    Backend, Isolation,
    protocol::{ExecPlan, Status, started_at},
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::prctl,
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid},
};

use crate::{
    Error,
    create::{Inherited, Prepared, Stdio, kind, prepare},
    exec::Image,
    init::{NOT_STARTED, Payload, exit},
    legacy,
    status::StatusStream,
    users,
};
use container::Container;

/// Puts a process into a container, and tells the daemon its pid, as this process sees it.
///
/// In the child it does not return: it is the program, or has said on `status` why it can't be.
pub(crate) fn join<B: Backend>(
    backend: B,
    exec: ExecPlan,
    inherited: Inherited,
    status: StatusStream,
) -> Result<(), Error> {
    let ExecPlan { mut plan, init, init_started, cgroups } = exec;
    let memory = inherited.bound(&mut plan);
    let stdio = inherited.stdio;
    let container = Container::open(init, &cgroups)?;
    // After all that is entered was opened: it is of the process that was there then, and still is.
    if !started_at(init.unsigned_abs()).is_ok_and(|started| started == init_started) {
        return Err(failed("look at its init")("it has ended"));
    }
    match kind(&backend, &plan)? {
        Isolation::Sealed => {
            // Before the container's cgroup is entered: its limits are the guest's.
            let Prepared { loaded, seal, notes, background } =
                prepare(&backend, &plan, &status).map_err(|error| missing(&plan, error))?;
            // A container that may trace processes sees this one as soon as it is in there, with what it has open.
            prctl::set_dumpable(false).map_err(failed("forbid tracing"))?;
            if let Some(child) = fork_into(&container)? {
                return child.report(&status, notes, background);
            }
            let terminal = plan.terminal.is_some();
            let guest = plan.guest.clone();
            let payload =
                Payload { backend, loaded, guest, memory, seal, status, terminal, tethered: false, joined: true };
            match own_mounts(container).and_then(|()| identity::assume(&plan.sandbox)).and_then(|()| connect(stdio)) {
                Ok(()) => exit(payload.run()),
                Err(error) => give_up(&payload.status, &error),
            }
        }
        Isolation::Own => {
            legacy::drop_identity()?;
            users::give_pipes(&plan.sandbox, [&stdio.stdin, &stdio.stdout, &stdio.stderr])?;
            let console = console(&plan)?;
            if let Some(child) = fork_into(&container)? {
                return child.report(&status, Vec::new(), None);
            }
            match container.enter().and_then(|()| program(&plan, stdio, console)) {
                Ok(image) => image.replace_process(&status),
                Err(error) => give_up(&status, &error),
            }
        }
    }
}

/// A child that waits until it was reported: what it says itself comes after that, on the same stream.
struct Waiting {
    pid: Pid,
    gate: PipeWriter,
}

impl Waiting {
    fn report(mut self, status: &StatusStream, notes: Vec<String>, background: Option<u32>) -> Result<(), Error> {
        status.send(&Status::Created { pid: self.pid.as_raw(), notes, background });
        self.gate.write_all(&[0]).map_err(failed("let the process go on"))
    }
}

/// Forks a child into the container's cgroup and PID namespace. Returns nothing in the child, once it was reported.
#[allow(unsafe_code)]
fn fork_into(container: &Container) -> Result<Option<Waiting>, Error> {
    container.enter_first()?;
    let (mut reported, gate) = io::pipe().map_err(failed("make a pipe"))?;
    // SAFETY: this process has one thread, so that nobody else's lock can be held in the child.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Some(Waiting { pid: child, gate })),
        Ok(ForkResult::Child) => {
            drop(gate);
            if reported.read_exact(&mut [0]).is_err() {
                // The parent was killed, and nobody knows of this process.
                exit(NOT_STARTED);
            }
            setsid().map(|_| None).map_err(failed("make a session"))
        }
        Err(errno) => Err(failed("fork")(errno)),
    }
}

/// Enters the container with mounts of this process's own: the seal takes some away that a native program in the same
/// container has use for.
fn own_mounts(container: Container) -> Result<(), Error> {
    container.enter()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(failed("make mounts private"))
}

/// Finds the program, as its user, once the streams are its own.
fn program(plan: &Plan, stdio: Stdio, console: Option<UnixStream>) -> Result<Image, Error> {
    match console {
        // Its descriptors are marked to be closed by the exec.
        Some(console) => tty::setup_console(&*create_syscall(), console.as_raw_fd(), false)
            .map_err(|error| failed("make a terminal")(error))?,
        None => connect(stdio)?,
    }
    identity::assume(&plan.sandbox)?;
    let user = plan.sandbox.process().as_ref().map_or(0, |process| process.user().uid());
    Image::of(&plan.guest, user)
}

/// Makes the inherited streams the standard ones.
fn connect(stdio: Stdio) -> Result<(), Error> {
    dup2_stdin(&stdio.stdin)
        .and_then(|()| dup2_stdout(&stdio.stdout))
        .and_then(|()| dup2_stderr(&stdio.stderr))
        .map_err(failed("connect standard streams"))
}

/// The socket that waits for the other end of the terminal.
fn console(plan: &Plan) -> Result<Option<UnixStream>, Error> {
    let Some(Terminal::Made { socket }) = &plan.terminal else { return Ok(None) };
    let connect = || -> io::Result<UnixStream> {
        // By descriptor: a folder's path may be longer than a socket's name may be.
        let folder = File::open(socket.parent().unwrap_or(socket))?;
        let name = Path::new(socket.file_name().unwrap_or_default());
        UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
    };
    connect().map(Some).map_err(failed("reach the terminal's socket"))
}

/// Where the program isn't there: an image's entrypoint has nothing to do with it.
fn missing(plan: &Plan, error: Error) -> Error {
    match error {
        Error::Oci(lighter_oci::Error::EntrypointMissing { .. }) => Error::Exec {
            program: plan.entrypoint.clone(),
            why: "no such file or directory in the container".to_owned(),
        },
        error => error,
    }
}

fn give_up(status: &StatusStream, error: &Error) -> ! {
    status.send(&Status::Failed { message: error.to_string() });
    exit(NOT_STARTED)
}

/// An [`Error::Join`] of this operation.
fn failed<E: ToString>(operation: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Join { operation, why: error.to_string() }
}
