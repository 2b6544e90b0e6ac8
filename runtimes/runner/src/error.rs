use std::{error::Error as StdError, io, path::PathBuf};

use libcontainer::{error::LibcontainerError, hooks::HookError};

/// Why a container could not be created or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan on the inherited descriptor can't be read.
    #[error("read plan: {0}")]
    ReadPlan(#[source] serde_json::Error),
    /// The bundle, the module or the cache is wrong.
    #[error(transparent)]
    Oci(#[from] lighter_oci::Error),
    /// The engine can't load the guest.
    #[error("entrypoint {module:?}: {source}")]
    Load {
        /// As the guest would see it.
        module: PathBuf,
        /// What the engine says.
        source: lighter_runtime_api::Error,
    },
    /// The engine can't start the guest.
    #[error(transparent)]
    Engine(#[from] lighter_runtime_api::Error),
    /// The module's bytes can't be read.
    #[error("read module {path}: {source}")]
    ReadModule {
        /// As the guest would see it.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Somebody wrote to the module while it was looked at.
    #[error("module {path} changed while it was read; run it again once nobody writes to it")]
    ModuleChanged {
        /// As the guest would see it.
        path: PathBuf,
    },
    /// No compiler has memory for it.
    #[error(
        "module {path} has {size} bytes, more than the {most} that one may have to be compiled; keep data in files beside it"
    )]
    ModuleTooLarge {
        /// As the guest would see it.
        path: PathBuf,
        /// Bytes.
        size: u64,
        /// Bytes.
        most: u64,
    },
    /// The compiler, the fetcher or the runner itself can't be run.
    #[error("run {path}: {source}; is Lighter installed completely?")]
    RunProgram {
        /// The executable.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The compiler refused the module, or hit one of its bounds.
    #[error("compile entrypoint {module:?}: {why}")]
    Compile {
        /// As the guest would see it.
        module: PathBuf,
        /// One line.
        why: String,
    },
    /// The container's image could not be looked at, or its module could not be read.
    #[error("get the module of container {container} from its image: {why}")]
    Fetch {
        /// Its id.
        container: String,
        /// One line.
        why: String,
    },
    /// There is no module in the root filesystem, and nothing that could have it as a layer.
    #[error("{reason}; {why}")]
    NoModule {
        /// What is wrong with the root filesystem.
        reason: lighter_oci::Error,
        /// Why it can't be a layer.
        why: String,
    },
    /// The command line of `compile` is wrong.
    #[error("{0}")]
    Usage(&'static str),
    /// The process can't lower its priority.
    #[error("step back: {0}")]
    StepBack(#[source] io::Error),
    /// The working directory isn't there and can't be made.
    #[error("create working directory {path}: {why}")]
    WorkingDirectory {
        /// As the guest would see it.
        path: PathBuf,
        /// What the kernel says.
        why: String,
    },
    /// The runner can't see its own descriptors, of which all but a few must be closed.
    #[error("list open descriptors: {0}")]
    Descriptors(#[source] io::Error),
    /// A file of the runner's own state can't be written.
    #[error("write {path}: {source}")]
    WriteState {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The runner is not root, and may not become root in a namespace of its own.
    #[error("run without root: {operation}: {why}; {cure}, or run it as root")]
    UserNamespace {
        /// Such as `make a user namespace`.
        operation: &'static str,
        /// What the kernel says.
        why: String,
        /// What would allow it.
        cure: String,
    },
    /// The user namespace that the container is to have can't be had.
    #[error("user namespace: {operation}: {source}")]
    Users {
        /// Such as `make it`.
        operation: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A volume of a container with a user namespace can't be mounted.
    #[error("mount {path} at {destination}: {operation}: {source}")]
    Volume {
        /// The folder or file of the host's.
        path: PathBuf,
        /// As the container sees it.
        destination: PathBuf,
        /// Such as `open it`.
        operation: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// There is no place for the volumes of a container with a user namespace.
    #[error("make a place for volumes: {operation}: {source}")]
    VolumesPlace {
        /// Such as `make a mount namespace`.
        operation: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// libcontainer could not build the sandbox.
    #[error("build sandbox: {0}")]
    Sandbox(String),
    /// A hook failed that is run in the container before its program.
    #[error("run startContainer hooks: {0}")]
    StartHook(String),
    /// A native program can't be run. As runc says it: Docker tells its exit codes by these words.
    #[error("exec: {program:?}: {why}")]
    Exec {
        /// As the spec names it, or where it was found.
        program: String,
        /// What the kernel says.
        why: String,
    },
    /// This runner is of another kind than the program.
    #[error("entrypoint {entrypoint:?} is {is}, which the engine {engine} does not run; choose {other}")]
    WrongEngine {
        /// As the spec names it.
        entrypoint: String,
        /// What it is.
        is: &'static str,
        /// The engine's name.
        engine: &'static str,
        /// What runs it.
        other: &'static str,
    },
    /// The container's cgroup in a hierarchy without controllers can't be joined.
    #[error("join cgroup {path}: {source}")]
    JoinCgroup {
        /// The folder.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The container can't be bound to its devices; it is not started.
    #[error("bind cgroup {path} to its devices: {source}")]
    Devices {
        /// The cgroup, or what says where it is.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A step into a running container failed; the program did not run.
    #[error("join container: {operation}: {why}")]
    Join {
        /// Such as `enter namespace pid`.
        operation: &'static str,
        /// What the kernel says.
        why: String,
    },
    /// Something of the shim's that a native program would inherit can't be put away.
    #[error("{operation}: {why}")]
    Legacy {
        /// Such as `leave supplementary groups`.
        operation: &'static str,
        /// What the kernel says.
        why: io::Error,
    },
    /// A step of the seal failed; the guest did not run.
    #[error("seal container: {operation}: {why}")]
    Seal {
        /// Such as `drop capabilities`.
        operation: &'static str,
        /// What the kernel says.
        why: String,
    },
}

impl From<LibcontainerError> for Error {
    fn from(error: LibcontainerError) -> Self {
        Self::Sandbox(chain(&error))
    }
}

impl From<HookError> for Error {
    fn from(error: HookError) -> Self {
        Self::StartHook(chain(&error))
    }
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn StdError) -> String {
    let mut parts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !parts.last().is_some_and(|last| last.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    parts.join(": ")
}
