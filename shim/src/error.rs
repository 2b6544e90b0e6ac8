use std::{io, path::PathBuf};

use containerd_shim_protos::ttrpc::{self, Code};
use lighter_oci::ANNOTATION_PREFIX;

/// Why a call failed. The message is what a person reads behind `ctr:`, `docker:` or in `kubectl describe pod`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("task {0} already exists")]
    Exists(String),
    #[error("task {0} not found")]
    NotFound(String),
    #[error("pod {0} not found")]
    NoPod(String),
    #[error("the daemon holds a pod already; {0} needs one of its own")]
    PodExists(String),
    #[error(
        "a pod with a user namespace (hostUsers: false) is not supported here; use a runtime handler without \
         sandboxer = \"shim\" for it"
    )]
    PodUsers,
    #[error("a pod has no metrics of its own; ask for those of its containers")]
    PodMetrics,
    #[error("sysctl {name}: {why}")]
    Sysctl { name: String, why: &'static str },
    #[error("set sysctl {name} to {value:?}: {source}")]
    SetSysctl { name: String, value: String, source: io::Error },
    #[error("process already finished")]
    Finished,
    #[error("{what} {id} is {phase}; {needs}")]
    WrongPhase { what: &'static str, id: String, phase: &'static str, needs: &'static str },
    /// In the words of containerd's own shim, which its clients know.
    #[error("cannot exec in a {phase} state")]
    NoExec { phase: &'static str },
    #[error("read {what} of the request: {why}")]
    Request { what: &'static str, why: String },
    #[error("{0} has no terminal")]
    NoTerminal(String),
    #[error("{what} is not supported for WebAssembly containers: {why}")]
    Unsupported { what: &'static str, why: &'static str },
    #[error(
        "engine {engine} is not installed: {path} is missing; install it, or choose another by the annotation \
         {ANNOTATION_PREFIX}engine: installed are {installed}"
    )]
    NoRunner { engine: String, path: PathBuf, installed: String },
    #[error(
        "the annotation {ANNOTATION_PREFIX}engine asks for {engine}, but {entrypoint:?} is WebAssembly; leave the \
         annotation out"
    )]
    NotNative { engine: &'static str, entrypoint: String },
    #[error(
        "exec: {0:?} is not WebAssembly: this container runs WebAssembly, and native programs have no place in it; name a \
         .wasm of the image"
    )]
    NativeInWasm(String),
    #[error("read runtime options: {0}")]
    Options(String),
    #[error(transparent)]
    Bundle(#[from] lighter_oci::Error),
    #[error("mount root filesystem at {path}: {source}")]
    MountRootfs { path: PathBuf, source: containerd_shim::Error },
    #[error("mount root filesystem at {path} with the ids of a user namespace: {source}")]
    MapRootfs { path: PathBuf, source: io::Error },
    #[error("open {stream} {path}: {source}")]
    OpenStream { stream: &'static str, path: String, source: io::Error },
    #[error("{stream} {uri:?} has a scheme that is not supported; use a FIFO, file:// or binary://")]
    StreamScheme { stream: &'static str, uri: String },
    #[error("start logging program {program}: {source}")]
    Logger { program: PathBuf, source: io::Error },
    /// The runner, or the init that it made.
    #[error(transparent)]
    Launch(#[from] lighter_launch::Error),
    #[error("{operation}: {source}")]
    System { operation: &'static str, source: io::Error },
    #[error("cgroup {path}: {why}")]
    Cgroup { path: PathBuf, why: String },
    #[error("set {file} to {value}: {why}")]
    Limit { file: String, value: String, why: String },
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
            Self::Exists(_) | Self::PodExists(_) => Code::ALREADY_EXISTS,
            Self::NotFound(_) | Self::NoPod(_) | Self::Finished | Self::Launch(lighter_launch::Error::Finished) => {
                Code::NOT_FOUND
            }
            Self::WrongPhase { .. } | Self::NoTerminal(_) => Code::FAILED_PRECONDITION,
            Self::Unsupported { .. } | Self::PodMetrics => Code::UNIMPLEMENTED,
            Self::NotNative { .. }
            | Self::NativeInWasm(_)
            | Self::Request { .. }
            | Self::Options(_)
            | Self::StreamScheme { .. }
            | Self::PodUsers
            | Self::Sysctl { .. }
            | Self::SetSysctl { .. }
            | Self::Signal(_) => Code::INVALID_ARGUMENT,
            Self::Bundle(
                lighter_oci::Error::Annotation { .. }
                | lighter_oci::Error::UnknownAnnotation { .. }
                | lighter_oci::Error::UnknownEngine { .. },
            ) => Code::INVALID_ARGUMENT,
            Self::NoExec { .. }
            | Self::Bundle(_)
            | Self::NoRunner { .. }
            | Self::MountRootfs { .. }
            | Self::MapRootfs { .. }
            | Self::OpenStream { .. }
            | Self::Logger { .. }
            | Self::Launch(
                lighter_launch::Error::RunRunner { .. }
                | lighter_launch::Error::Guest(_)
                | lighter_launch::Error::Libraries(_)
                | lighter_launch::Error::RunnerDied { .. }
                | lighter_launch::Error::InitDied
                | lighter_launch::Error::Hook { .. }
                | lighter_launch::Error::Cgroup { .. }
                | lighter_launch::Error::System { .. },
            )
            | Self::System { .. }
            | Self::Cgroup { .. }
            | Self::Limit { .. } => Code::UNKNOWN,
        }
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        Self::RpcStatus(ttrpc::get_status(error.code(), error.to_string()))
    }
}
