//! Pod sandboxes.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
};

use containerd_client::tonic::Status;
use k8s_cri::v1::{
    Container as ListedContainer, ContainerFilter, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    ListContainersRequest, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxState,
    PodSandboxStatus, PodSandboxStatusRequest, PortForwardRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StopPodSandboxRequest,
};

use super::{Container, ContainerBuilder, Cri, Forward};
use crate::{Image, vm};

/// Below it, a folder of logs for each pod.
const LOGS: &str = "/var/log/pods";

/// Where systemd puts pods, unless told otherwise; a slice in another.
const SLICE: &str = "/kubepods.slice/kubepods-besteffort.slice";

/// A pod to be. What there is no method for is in `config`.
pub struct PodBuilder<'cri, 'bed> {
    cri: &'cri Cri<'bed>,
    handler: String,
    /// As it is sent.
    pub config: PodSandboxConfig,
}

impl<'cri, 'bed> PodBuilder<'cri, 'bed> {
    pub(super) fn new(cri: &'cri Cri<'bed>, handler: &str, name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let uid = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let config = PodSandboxConfig {
            log_directory: format!("{LOGS}/{uid}"),
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid,
                namespace: "tests".to_owned(),
                attempt: 0,
            }),
            labels: HashMap::from([("pod".to_owned(), name.to_owned())]),
            linux: Some(LinuxPodSandboxConfig {
                // The kubelet names one in any case.
                cgroup_parent: if vm::has_systemds_cgroups() { SLICE.to_owned() } else { String::new() },
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        PodBuilder { cri, handler: handler.to_owned(), config }
    }

    /// Changes the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut PodSandboxConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes what is Linux's in it.
    pub fn linux(self, change: impl FnOnce(&mut LinuxPodSandboxConfig)) -> Self {
        self.with(|config| change(config.linux.get_or_insert_default()))
    }

    /// Changes which namespaces are the pod's own.
    pub fn namespaces(self, change: impl FnOnce(&mut NamespaceOption)) -> Self {
        let options = |linux: &mut LinuxPodSandboxConfig| {
            change(linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default());
        };
        self.linux(options)
    }

    /// Runs it.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn try_run(self) -> Result<Pod<'cri, 'bed>, Status> {
        let PodBuilder { cri, handler, config } = self;
        let logs = cri.path(&config.log_directory);
        std::fs::create_dir_all(&logs).unwrap_or_else(|error| panic!("create {}: {error}", logs.display()));
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler };
        let id = cri.call(async |runtime| runtime.run_pod_sandbox(request).await)?.pod_sandbox_id;
        Ok(Pod { cri, id, config })
    }

    /// Runs it, and panics where that fails.
    #[track_caller]
    pub fn run(self) -> Pod<'cri, 'bed> {
        let what = format!("pod of {}", self.handler);
        self.try_run().unwrap_or_else(|status| panic!("run a {what}: {status}"))
    }
}

/// The kubelet's default: all the pod's, but a PID namespace for each container.
fn namespaces() -> NamespaceOption {
    NamespaceOption { pid: NamespaceMode::Container.into(), ..NamespaceOption::default() }
}

/// A pod; removed with all in it when dropped, even by a failed test.
pub struct Pod<'cri, 'bed> {
    pub(super) cri: &'cri Cri<'bed>,
    pub(super) id: String,
    pub(super) config: PodSandboxConfig,
}

impl<'bed> Pod<'_, 'bed> {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The client that made it.
    pub fn cri(&self) -> &Cri<'bed> {
        self.cri
    }

    /// As it was sent.
    pub fn config(&self) -> &PodSandboxConfig {
        &self.config
    }

    /// What containers are told of the pod's namespaces.
    pub(super) fn namespaces_for_containers(&self) -> Option<NamespaceOption> {
        self.config.linux.as_ref()?.security_context.as_ref()?.namespace_options.clone()
    }

    /// A container to be, of this image, which is imported where it isn't there.
    #[track_caller]
    pub fn container(&self, name: &str, image: &Image) -> ContainerBuilder<'_, 'bed> {
        self.cri.import(image);
        self.container_of(name, image.name())
    }

    /// A container to be, of an image that is there.
    pub fn container_of(&self, name: &str, image: &str) -> ContainerBuilder<'_, 'bed> {
        ContainerBuilder::new(self, name, image)
    }

    /// A container that is there, without its log.
    pub fn known_container(&self, id: &str) -> Container<'_, 'bed> {
        Container::known(self.cri, id)
    }

    /// Its status.
    ///
    /// # Errors
    /// What CRI answers: NotFound for a pod that was removed.
    #[track_caller]
    pub fn try_status(&self) -> Result<PodSandboxStatus, Status> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let response = self.cri.call(async |runtime| runtime.pod_sandbox_status(request).await)?;
        Ok(response.status.expect("a status"))
    }

    /// Its status.
    #[track_caller]
    pub fn status(&self) -> PodSandboxStatus {
        self.try_status().unwrap_or_else(|status| panic!("status of pod {}: {status}", self.id))
    }

    /// Whether it is ready.
    #[track_caller]
    pub fn is_ready(&self) -> bool {
        self.status().state() == PodSandboxState::SandboxReady
    }

    /// Its address, empty where it has the node's network.
    #[track_caller]
    pub fn ip(&self) -> String {
        self.status().network.map(|network| network.ip).unwrap_or_default()
    }

    /// The containers in it.
    #[track_caller]
    pub fn containers(&self) -> Vec<ListedContainer> {
        let filter = ContainerFilter { pod_sandbox_id: self.id.clone(), ..ContainerFilter::default() };
        let request = ListContainersRequest { filter: Some(filter) };
        let listed = self.cri.call(async |runtime| runtime.list_containers(request).await);
        listed.unwrap_or_else(|status| panic!("containers of pod {}: {status}", self.id)).containers
    }

    /// Stops it and all in it.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn stop(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call(async |runtime| runtime.stop_pod_sandbox(request).await).map(drop)
    }

    /// Removes it and all in it.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn remove(&self) -> Result<(), Status> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call(async |runtime| runtime.remove_pod_sandbox(request).await).map(drop)
    }

    /// A connection to a port of the pod, by way of containerd.
    #[track_caller]
    pub fn forward(&self, port: u16) -> Forward {
        let request = PortForwardRequest { pod_sandbox_id: self.id.clone(), port: vec![i32::from(port)] };
        let url = self.cri.call(async |runtime| runtime.port_forward(request).await);
        let url = url.unwrap_or_else(|status| panic!("forward a port of pod {}: {status}", self.id)).url;
        Forward::open(self.cri.bed(), &url, port)
    }
}

impl Drop for Pod<'_, '_> {
    fn drop(&mut self) {
        // Removed already, or containerd is gone: a test that cares asks. Its end may be a panic: no other may follow.
        let stop = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        let remove = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.at_last(async |runtime| {
            runtime.stop_pod_sandbox(stop).await?;
            runtime.remove_pod_sandbox(remove).await.map(drop)
        });
    }
}
