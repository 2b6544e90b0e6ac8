//! What the task service needs of a container, whoever runs it: a runner process, or a stub in tests.

use std::path::PathBuf;

use async_trait::async_trait;
use containerd_shim_protos::{protobuf::well_known_types::any::Any, types::mount::Mount};

pub(crate) use lighter_launch::Exit;
use lighter_oci::Config;

use crate::{error::Error, stdio::StdioPaths};

/// What a container is made from.
#[derive(Clone, Debug)]
pub(crate) struct CreateRequest {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: StdioPaths,
    /// The settings of the runtime.
    pub(crate) options: Config,
}

/// Makes sandboxes.
#[async_trait]
pub(crate) trait Launcher: Send + Sync + 'static {
    type Sandbox: Sandbox;

    /// Builds a sandbox whose init waits for [`Sandbox::start`]. On an error nothing of it is left.
    async fn create(&self, request: &CreateRequest) -> Result<Self::Sandbox, Error>;
}

/// A container with its init.
#[async_trait]
pub(crate) trait Sandbox: Send + Sync + 'static {
    /// The init's process id, as containerd sees it.
    fn pid(&self) -> u32;

    /// Lets the guest run. Returns when its first instruction is next.
    async fn start(&self) -> Result<(), Error>;

    /// Resolves when the init has ended. Called once.
    async fn exited(&self) -> Exit;

    /// Sends a signal to the init, or to every process of the container.
    fn kill(&self, signal: u32, all: bool) -> Result<(), Error>;

    /// All processes of the container.
    fn pids(&self) -> Result<Vec<u32>, Error>;

    /// containerd's `Metrics` message for the node's cgroup version.
    fn stats(&self) -> Result<Any, Error>;

    /// Ends the guest's standard input once the client has closed its end.
    fn close_stdin(&self);

    /// Ends whatever is left, and removes cgroup, mounts and state.
    async fn remove(&self) -> Result<(), Error>;
}
