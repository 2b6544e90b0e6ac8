//! Sandbox v1 over ttrpc: decodes calls, and encodes what [`Pod`] answers.
//!
//! In the order in which containerd's CRI calls: CreateSandbox with the network namespace that CNI has set up, StartSandbox,
//! then SandboxStatus and Platform before each container; StopSandbox after it has ended the containers, ShutdownSandbox after
//! it has removed them. WaitSandbox hangs from the start on, and again after a restart of containerd's.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use containerd_shim::util::convert_to_timestamp;
use containerd_shim_protos::{
    protobuf::MessageField,
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest, PlatformResponse,
        SandboxMetricsRequest, SandboxMetricsResponse, SandboxStatusRequest, SandboxStatusResponse,
        ShutdownSandboxRequest, ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest,
        StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
    },
    sandbox_async::{Sandbox, create_sandbox},
    ttrpc::{
        self,
        r#async::{Server, TtrpcContext},
    },
    types::platform::Platform,
};
use lighter_oci::image::go_architecture;
use tokio::sync::watch;

use super::{CreatePod, Pod, config::PodConfig};
use crate::{
    error::Error,
    sandbox::Launcher,
    tasks::{Tasks, timestamp},
};

/// CRI's names of states.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// How long an answer may take to be written. A server that shuts down drops what isn't, and doesn't say when it is;
/// containerd takes a lost answer for a failure.
const ANSWERED: Duration = Duration::from_millis(50);

/// The sandbox service.
pub(crate) struct SandboxService<L: Launcher> {
    pod: Pod,
    tasks: Arc<Tasks<L>>,
    shutdown: watch::Sender<bool>,
}

impl<L: Launcher> SandboxService<L> {
    /// `shutdown` turns true when containerd has no use for the daemon any more.
    pub(crate) fn new(pod: Pod, tasks: Arc<Tasks<L>>, shutdown: watch::Sender<bool>) -> Self {
        Self { pod, tasks, shutdown }
    }

    pub(crate) fn register(self, server: Server) -> Server {
        server.register_service(create_sandbox(Arc::new(self)))
    }
}

#[async_trait]
impl<L: Launcher> Sandbox for SandboxService<L> {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        let created = CreatePod {
            config: PodConfig::read(request.options.as_ref())?,
            id: request.sandbox_id,
            bundle: PathBuf::from(request.bundle_path),
            network: (!request.netns_path.is_empty()).then(|| PathBuf::from(request.netns_path)),
        };
        let id = created.id.clone();
        self.pod.create(created).inspect_err(|error| log::warn!("create pod {id}: {error}"))?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let status = self.pod.start(&request.sandbox_id)?;
        let created_at = MessageField::some(convert_to_timestamp(Some(status.created.into())));
        Ok(StartSandboxResponse { pid: status.pid, created_at, ..StartSandboxResponse::default() })
    }

    async fn platform(&self, _: &TtrpcContext, _: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        let platform = Platform {
            os: env::consts::OS.to_owned(),
            architecture: go_architecture(env::consts::ARCH).to_owned(),
            ..Platform::default()
        };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..PlatformResponse::default() })
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, request: StopSandboxRequest) -> ttrpc::Result<StopSandboxResponse> {
        // CRI has ended them. Whoever hasn't means it all the same.
        self.tasks.kill_all();
        self.pod.stop(&request.sandbox_id)?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, request: WaitSandboxRequest) -> ttrpc::Result<WaitSandboxResponse> {
        let exit = self.pod.wait(&request.sandbox_id).await?;
        let exited_at = MessageField::some(timestamp(exit));
        Ok(WaitSandboxResponse { exit_status: exit.status, exited_at, ..WaitSandboxResponse::default() })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        let status = self.pod.status(&request.sandbox_id)?;
        Ok(SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: status.pid,
            state: if status.ready { READY } else { NOT_READY }.to_owned(),
            created_at: MessageField::some(convert_to_timestamp(Some(status.created.into()))),
            exited_at: status.end.map(timestamp).into(),
            ..SandboxStatusResponse::default()
        })
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        self.pod.status(&request.sandbox_id)?;
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        // Of a pod that could not be made, there is nothing to stop.
        match self.pod.stop(&request.sandbox_id) {
            Ok(()) | Err(Error::NoPod(_)) => {}
            Err(error) => log::warn!("stop pod {}: {error}", request.sandbox_id),
        }
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ANSWERED).await;
            shutdown.send_replace(true);
        });
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        _: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        // CRI reads those of the cgroup that it has made for the pod.
        Err(Error::PodMetrics.into())
    }
}
