//! The container's init: waits for the start signal inside libcontainer, then seals itself and runs the guest. A process that
//! joins a container does the same, without the wait.

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::CString,
    fs::OpenOptions,
    io::{self, Write},
    rc::Rc,
};

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use lighter_runtime_api::{Backend, Guest, MemoryBound, Outcome, protocol::Status};
use nix::sys::{prctl, signal::Signal};
use oci_spec::runtime::Spec;

use crate::{seal::Seal, signals, status::StatusStream, terminal};

/// Exit code of a trap, as a shell shows an abort: 128 + SIGABRT.
const TRAPPED: i32 = 134;
/// Exit code of an init that never came to run its guest. Start has failed with the cause.
pub(crate) const NOT_STARTED: i32 = 255;
/// Where Kubernetes mounts the file that it shows as a container's termination message.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// libcontainer's executor. It demands `Clone`, though only one clone ever runs, in the forked init.
pub(crate) struct Init<B: Backend>(Rc<RefCell<Option<Payload<B>>>>);

/// All that running a guest takes.
pub(crate) struct Payload<B: Backend> {
    pub(crate) backend: B,
    pub(crate) loaded: B::Loaded,
    pub(crate) guest: Guest,
    pub(crate) memory: MemoryBound,
    pub(crate) seal: Seal,
    pub(crate) status: StatusStream,
    /// Whether the standard streams are a terminal, which is to be the guest's.
    pub(crate) terminal: bool,
    /// Whether it ends with the process that launched it.
    pub(crate) tethered: bool,
    /// Whether the container is another's: its end is not the container's.
    pub(crate) joined: bool,
}

impl<B: Backend> Init<B> {
    pub(crate) fn new(payload: Payload<B>) -> Self {
        Self(Rc::new(RefCell::new(Some(payload))))
    }
}

impl<B: Backend> Clone for Init<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B: Backend> Executor for Init<B> {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // The runner validated the module before it forked. What is left is to wait for the start, in libcontainer.
        if self.0.borrow().as_ref().is_some_and(|payload| payload.tethered) {
            let bounded = signals::end_unless_started();
            bounded.map_err(|error| ExecutorValidationError::ArgValidationError(error.to_string()))?;
        }
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The guest's environment is in the plan; the process keeps the empty one that the daemon gave it.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let payload = self.0.borrow_mut().take().ok_or(ExecutorError::InvalidArg)?;
        exit(payload.run())
    }
}

impl<B: Backend> Payload<B> {
    /// Returns the process's exit code.
    pub(crate) fn run(self) -> i32 {
        let Self { backend, loaded, guest, memory, seal, status, terminal, tethered, joined } = self;
        // What `ps` and `top` show; libcontainer left its own.
        if let Ok(name) = CString::new(format!("lighter-{}", backend.identity().name)) {
            let _ = prctl::set_name(&name);
        }
        signals::started();
        // Only now: the runner was the parent until it ended, and its end would have counted.
        if tethered && (prctl::set_pdeathsig(Signal::SIGKILL).is_err() || status.is_abandoned()) {
            return NOT_STARTED;
        }
        let status = Rc::new(RefCell::new(Some(status)));
        let report = Rc::clone(&status);
        // Building the sandbox took code that running a guest does not take. Not giving it back is no reason to fail.
        if backend.resumes_waits() {
            let _ = seal.file_pages().map(signals::give_back_later);
        }
        let terminal = if terminal { terminal::control() } else { Ok(()) };
        let outcome = terminal.and_then(|()| seal.apply()).and_then(|()| {
            let ready = Box::new(move || {
                // Taken, so that the descriptor is closed before the guest runs.
                if let Some(status) = report.borrow_mut().take() {
                    status.send(&Status::Started);
                }
            });
            Ok(backend.run(loaded, &guest, memory, ready)?)
        });
        match outcome {
            Ok(Outcome::Exited(code)) => code.into(),
            Ok(Outcome::Trapped(trace)) => {
                tell_trap(&trace, joined);
                TRAPPED
            }
            Err(error) => {
                match status.borrow_mut().take() {
                    Some(status) => status.send(&Status::Failed { message: error.to_string() }),
                    // It failed after the guest was reported as started: its own stderr is the place left to say so.
                    None => drop(writeln!(io::stderr(), "lighter: {error}")),
                }
                NOT_STARTED
            }
        }
    }
}

/// Says a trap where people look: on the process's stderr, and where it was the container's, in Kubernetes' termination
/// message.
fn tell_trap(trace: &str, joined: bool) {
    let _ = writeln!(io::stderr(), "{}", trace.trim_end());
    if joined {
        return;
    }
    // Never created: it exists where somebody mounted it. Behind what the guest has written there itself; of all of it, Kubernetes
    // reads the last 4096 bytes.
    if let Ok(mut file) = OpenOptions::new().append(true).open(TERMINATION_LOG) {
        let begun = file.metadata().is_ok_and(|metadata| metadata.len() > 0);
        let bytes = trace.as_bytes();
        let _ = file.write_all(if begun { b"\n" } else { b"" });
        let _ = file.write_all(&bytes[..bytes.len().min(4000)]);
    }
}

/// Ends the init. What the guest wrote is flushed; destructors of a process that goes away would only take time.
#[allow(unsafe_code)]
pub(crate) fn exit(code: i32) -> ! {
    let _ = io::stdout().flush();
    // SAFETY: `_exit` takes any value and does not return.
    unsafe { libc::_exit(code) }
}
