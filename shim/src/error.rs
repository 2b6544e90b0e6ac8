use std::{io, path::PathBuf};

use containerd_shim_protos::ttrpc::{self, Code};

/// Why a call failed. The message is what a person reads behind `ctr:`, `docker:` or in `kubectl describe pod`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("task {0} already exists")]
    Exists(String),
    #[error("task {0} not found")]
    NotFound(String),
    #[error("process already finished")]
    Finished,
    #[error("task {id} is {phase}; {needs}")]
    WrongPhase { id: String, phase: &'static str, needs: &'static str },
    #[error("{what} is not supported for WebAssembly containers: {why}")]
    Unsupported { what: &'static str, why: &'static str },
    #[error("unknown engine {0:?}; this build has \"wasmtime\"")]
    UnknownEngine(String),
    #[error(transparent)]
    Bundle(#[from] lighter_oci::Error),
    #[error("mount root filesystem at {path}: {source}")]
    MountRootfs { path: PathBuf, source: containerd_shim::Error },
    #[error("open {stream} {path}: {source}")]
    OpenStream { stream: &'static str, path: String, source: io::Error },
    #[error("{stream} {uri:?} has a scheme that is not supported; use a FIFO or file://")]
    StreamScheme { stream: &'static str, uri: String },
    #[error("run {path}: {source}; is Lighter installed completely?")]
    RunRunner { path: PathBuf, source: io::Error },
    /// The runner said what is wrong.
    #[error("{0}")]
    Guest(String),
    /// It was killed, or it crashed: both leave no message.
    #[error("the runner ended without a message, with exit code {status}; it was killed or crashed{said}")]
    RunnerDied { status: u32, said: String },
    #[error(
        "the container's init ended before its guest ran; it was killed, or its memory limit is too small for the runner"
    )]
    InitDied,
    #[error("{operation}: {source}")]
    System { operation: &'static str, source: io::Error },
    #[error("cgroup {path}: {why}")]
    Cgroup { path: PathBuf, why: String },
    #[error("invalid signal {0}")]
    Signal(u32),
}

impl Error {
    /// A failed system call.
    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }

    fn code(&self) -> Code {
        match self {
            Self::Exists(_) => Code::ALREADY_EXISTS,
            Self::NotFound(_) | Self::Finished => Code::NOT_FOUND,
            Self::WrongPhase { .. } => Code::FAILED_PRECONDITION,
            Self::Unsupported { .. } => Code::UNIMPLEMENTED,
            Self::UnknownEngine(_) | Self::StreamScheme { .. } | Self::Signal(_) => Code::INVALID_ARGUMENT,
            Self::Bundle(_)
            | Self::MountRootfs { .. }
            | Self::OpenStream { .. }
            | Self::RunRunner { .. }
            | Self::Guest(_)
            | Self::RunnerDied { .. }
            | Self::InitDied
            | Self::System { .. }
            | Self::Cgroup { .. } => Code::UNKNOWN,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error.to_string()))
    }
}
