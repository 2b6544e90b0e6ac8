//! What the task service needs of a container, whoever runs it: a runner process, or a stub in tests.

use std::path::PathBuf;

use async_trait::async_trait;
use containerd_shim_protos::{protobuf::well_known_types::any::Any, types::mount::Mount};
pub(crate) use lighter_launch::Exit;
use lighter_oci::Config;
use oci_spec::runtime::{LinuxResources, Process};
use tokio::sync::watch;

use crate::{error::Error, stdio::StdioPaths};

/// What a container is made from.
#[derive(Clone, Debug)]
pub(crate) struct CreateRequest {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: StdioPaths,
    /// Whether its streams are a terminal's.
    pub(crate) terminal: bool,
    /// The settings of the runtime.
    pub(crate) options: Config,
}

/// What is to run in a container beside its init.
#[derive(Clone, Debug)]
pub(crate) struct ExecRequest {
    /// Its name among the container's processes.
    pub(crate) id: String,
    pub(crate) process: Process,
    pub(crate) stdio: StdioPaths,
    /// Whether its streams are a terminal's.
    pub(crate) terminal: bool,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// Turns true when nobody waits any more for what is being made.
pub(crate) type Unwanted = watch::Receiver<bool>;

/// Makes sandboxes.
#[async_trait]
pub(crate) trait Launcher: Send + Sync + 'static {
    type Sandbox: Sandbox;

    /// Builds a sandbox whose init waits for [`Sandbox::start`]. On an error nothing of it is left; that nobody wants it any
    /// more is one.
    async fn create(&self, request: &CreateRequest, unwanted: Unwanted) -> Result<Self::Sandbox, Error>;
}

/// A process that runs in a container beside its init.
#[async_trait]
pub(crate) trait Execution: Send + Sync + 'static {
    /// Its process id, as containerd sees it.
    fn pid(&self) -> u32;

    /// Resolves when it has ended. Called once.
    async fn exited(&self) -> Exit;

    /// Sends it a signal.
    fn kill(&self, signal: u32) -> Result<(), Error>;

    /// Ends its standard input once the client has closed its end.
    fn close_stdin(&self);

    /// Changes its terminal's size.
    fn resize(&self, size: Size) -> Result<(), Error>;
}

/// A container with its init.
#[async_trait]
pub(crate) trait Sandbox: Send + Sync + 'static {
    type Execution: Execution;

    /// The init's process id, as containerd sees it.
    fn pid(&self) -> u32;

    /// Lets the guest run. Returns when its first instruction is next.
    async fn start(&self) -> Result<(), Error>;

    /// Runs another program in the container. Returns when its first instruction is next. That nobody wants it any more is
    /// an error.
    async fn exec(&self, request: &ExecRequest, unwanted: Unwanted) -> Result<Self::Execution, Error>;

    /// Resolves when the init has ended. Called once.
    async fn exited(&self) -> Exit;

    /// Resolves when the kernel has killed a process of the container for want of memory since this last resolved, at once
    /// if it has already; never if that can't be watched. May be dropped, and called by several at once.
    async fn out_of_memory(&self);

    /// Sends a signal to the init, or to every process of the container.
    fn kill(&self, signal: u32, all: bool) -> Result<(), Error>;

    /// Stops every process of the container until [`Self::resume`]. Returns when they stand still.
    async fn pause(&self) -> Result<(), Error>;

    /// Lets them go on.
    async fn resume(&self) -> Result<(), Error>;

    /// Changes the container's limits; what is not named stays.
    async fn update(&self, resources: &LinuxResources) -> Result<(), Error>;

    /// All processes of the container.
    fn pids(&self) -> Result<Vec<u32>, Error>;

    /// containerd's `Metrics` message for the node's cgroup version.
    fn stats(&self) -> Result<Any, Error>;

    /// Ends the guest's standard input once the client has closed its end.
    fn close_stdin(&self);

    /// Changes the terminal's size.
    fn resize(&self, size: Size) -> Result<(), Error>;

    /// Ends whatever is left, and removes cgroup, mounts and state.
    async fn remove(&self) -> Result<(), Error>;
}
