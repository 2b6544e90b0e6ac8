//! Containers of pods.

use std::{collections::HashMap, fs, path::PathBuf};

use containerd_client::tonic::Status;
use k8s_cri::v1::{
    AttachRequest, ContainerConfig, ContainerMetadata, ContainerState, ContainerStats, ContainerStatsRequest,
    ContainerStatus, ContainerStatusRequest, CreateContainerRequest, ExecRequest, ExecSyncResponse, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, Mount, RemoveContainerRequest,
    ReopenContainerLogRequest, StartContainerRequest, StopContainerRequest, UpdateContainerResourcesRequest,
};

use super::{COMES_WITHIN, Channels, Cri, Line, Pod, Tag, eventually, image_spec, logs};

/// What the kubelet hides of the kernel, and what it has containers only read.
///
/// Source: kubernetes, `pkg/securitycontext/util.go`.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container to be. What there is no method for is in `config`.
pub struct ContainerBuilder<'pod, 'bed> {
    pod: &'pod Pod<'pod, 'bed>,
    /// As it is sent.
    pub config: ContainerConfig,
}

impl<'pod, 'bed> ContainerBuilder<'pod, 'bed> {
    pub(super) fn new(pod: &'pod Pod<'_, 'bed>, name: &str, image: &str) -> Self {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(image_spec(image)),
            labels: HashMap::from([("container".to_owned(), name.to_owned())]),
            log_path: format!("{name}/0.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources::default()),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: pod.namespaces_for_containers(),
                    masked_paths: MASKED.iter().map(ToString::to_string).collect(),
                    readonly_paths: READ_ONLY.iter().map(ToString::to_string).collect(),
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        };
        ContainerBuilder { pod, config }
    }

    /// Changes the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// In place of the image's entrypoint.
    pub fn command(self, words: &[&str]) -> Self {
        self.with(|config| config.command = words.iter().map(ToString::to_string).collect())
    }

    /// In place of the image's arguments.
    pub fn args(self, words: &[&str]) -> Self {
        self.with(|config| config.args = words.iter().map(ToString::to_string).collect())
    }

    /// An environment variable.
    pub fn env(self, key: &str, value: &str) -> Self {
        self.with(|config| config.envs.push(KeyValue { key: key.to_owned(), value: value.to_owned() }))
    }

    /// Which start of the container it is, the first being 0.
    pub fn attempt(self, attempt: u32) -> Self {
        self.with(|config| {
            let metadata = config.metadata.get_or_insert_default();
            metadata.attempt = attempt;
            config.log_path = format!("{}/{attempt}.log", metadata.name);
        })
    }

    /// A file or folder of the node.
    pub fn mount(self, host_path: &str, container_path: &str, readonly: bool) -> Self {
        let mount = Mount {
            host_path: host_path.to_owned(),
            container_path: container_path.to_owned(),
            readonly,
            ..Mount::default()
        };
        self.with(|config| config.mounts.push(mount))
    }

    /// Changes who it runs as, and what it may.
    pub fn security(self, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        self.with(|config| change(config.linux.get_or_insert_default().security_context.get_or_insert_default()))
    }

    /// Changes what it may use.
    pub fn resources(self, change: impl FnOnce(&mut LinuxContainerResources)) -> Self {
        self.with(|config| change(config.linux.get_or_insert_default().resources.get_or_insert_default()))
    }

    /// Creates it.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn try_create(self) -> Result<Container<'pod, 'bed>, Status> {
        let ContainerBuilder { pod, config } = self;
        let log = format!("{}/{}", pod.config.log_directory, config.log_path);
        // The kubelet makes the folder of each container's logs.
        let folder = pod.cri.path(&log).parent().map(PathBuf::from).unwrap_or_default();
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("create {}: {error}", folder.display()));
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = pod.cri.call(async |runtime| runtime.create_container(request).await)?.container_id;
        Ok(Container { cri: pod.cri, id, log: pod.cri.path(&log) })
    }

    /// Creates it, and panics where that fails.
    #[track_caller]
    pub fn create(self) -> Container<'pod, 'bed> {
        self.try_create().unwrap_or_else(|status| panic!("create a container: {status}"))
    }

    /// Creates and starts it.
    #[track_caller]
    pub fn start(self) -> Container<'pod, 'bed> {
        let container = self.create();
        container.start().unwrap_or_else(|status| panic!("start a container: {status}"));
        container
    }
}

/// A container of a pod, which removes it.
pub struct Container<'pod, 'bed> {
    cri: &'pod Cri<'bed>,
    id: String,
    log: PathBuf,
}

impl<'pod, 'bed> Container<'pod, 'bed> {
    pub(super) fn known(cri: &'pod Cri<'bed>, id: &str) -> Self {
        Container { cri, id: id.to_owned(), log: PathBuf::new() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its log is, as the host sees it.
    pub fn log_path(&self) -> &PathBuf {
        &self.log
    }

    /// Starts it.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn start(&self) -> Result<(), Status> {
        let request = StartContainerRequest { container_id: self.id.clone() };
        self.cri.call(async |runtime| runtime.start_container(request).await).map(drop)
    }

    /// Stops it: SIGTERM, and SIGKILL where it hasn't ended after so many seconds.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn stop(&self, seconds: i64) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: self.id.clone(), timeout: seconds };
        self.cri.call(async |runtime| runtime.stop_container(request).await).map(drop)
    }

    /// Removes it.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn remove(&self) -> Result<(), Status> {
        let request = RemoveContainerRequest { container_id: self.id.clone() };
        self.cri.call(async |runtime| runtime.remove_container(request).await).map(drop)
    }

    /// Its status.
    ///
    /// # Errors
    /// What CRI answers: NotFound for a container that was removed.
    #[track_caller]
    pub fn try_status(&self) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let response = self.cri.call(async |runtime| runtime.container_status(request).await)?;
        Ok(response.status.expect("a status"))
    }

    /// Its status.
    #[track_caller]
    pub fn status(&self) -> ContainerStatus {
        self.try_status().unwrap_or_else(|status| panic!("status of container {}: {status}", self.id))
    }

    /// Waits for its end, and returns its last status.
    #[track_caller]
    pub fn wait(&self) -> ContainerStatus {
        let ended = || Some(self.status()).filter(|status| status.state() == ContainerState::ContainerExited);
        self.eventually("its end", ended)
    }

    /// Waits for its end, panics unless that is with this exit code, and returns the log's text.
    #[track_caller]
    pub fn expect(&self, exit_code: i32) -> String {
        let status = self.wait();
        self.eventually("end of its log", || logs::is_complete(self.cri.bed(), &self.log).then_some(()));
        let text = self.text();
        assert_eq!(status.exit_code, exit_code, "{} {:?}\n{text}", status.reason, status.message);
        text
    }

    /// The lines of its log so far.
    #[track_caller]
    pub fn log(&self) -> Vec<Line> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        // The last line may be on its way.
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(|line| Line::parse(line).unwrap_or_else(|| panic!("no line of a log: {line:?}"))).collect()
    }

    /// What it printed so far, both streams, without times and tags.
    #[track_caller]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.log() {
            text += &line.text;
            if line.tag == Tag::Full {
                text.push('\n');
            }
        }
        text
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.eventually(&format!("{text:?} in its log"), || self.text().contains(text).then_some(()));
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        eventually(check).unwrap_or_else(|| {
            let (status, text) = (self.try_status(), self.text());
            panic!("no {what} within {COMES_WITHIN:?}; status {status:?}, log:\n{text}")
        })
    }

    /// Has its log opened again, as after a rotation.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn reopen_log(&self) -> Result<(), Status> {
        let request = ReopenContainerLogRequest { container_id: self.id.clone() };
        self.cri.call(async |runtime| runtime.reopen_container_log(request).await).map(drop)
    }

    /// Changes what it may use while it runs.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn update(&self, resources: LinuxContainerResources) -> Result<(), Status> {
        let request = UpdateContainerResourcesRequest {
            container_id: self.id.clone(),
            linux: Some(resources),
            ..UpdateContainerResourcesRequest::default()
        };
        self.cri.call(async |runtime| runtime.update_container_resources(request).await).map(drop)
    }

    /// What it uses.
    ///
    /// # Errors
    /// What CRI answers.
    #[track_caller]
    pub fn stats(&self) -> Result<ContainerStats, Status> {
        let request = ContainerStatsRequest { container_id: self.id.clone() };
        let response = self.cri.call(async |runtime| runtime.container_stats(request).await)?;
        Ok(response.stats.expect("figures"))
    }

    /// Runs a program in it to its end, or for so many seconds, 0 being for ever.
    ///
    /// # Errors
    /// What CRI answers: DeadlineExceeded where it takes longer.
    #[track_caller]
    pub fn exec_sync(&self, command: &[&str], seconds: i64) -> Result<ExecSyncResponse, Status> {
        self.cri.exec_sync(&self.id, command, seconds)
    }

    /// Runs a program in it, and streams what it reads and prints.
    #[track_caller]
    pub fn exec(&self, command: &[&str], stdin: bool, tty: bool) -> Channels {
        let cmd = command.iter().map(ToString::to_string).collect();
        // A terminal has one output.
        let request = ExecRequest { container_id: self.id.clone(), cmd, tty, stdin, stdout: true, stderr: !tty };
        let url = self.cri.call(async |runtime| runtime.exec(request).await);
        let url = url.unwrap_or_else(|status| panic!("exec in container {}: {status}", self.id)).url;
        Channels::open(self.cri.bed(), &url)
    }

    /// Streams what its first process reads and prints.
    #[track_caller]
    pub fn attach(&self, stdin: bool, tty: bool) -> Channels {
        let request = AttachRequest { container_id: self.id.clone(), stdin, tty, stdout: true, stderr: !tty };
        let url = self.cri.call(async |runtime| runtime.attach(request).await);
        let url = url.unwrap_or_else(|status| panic!("attach to container {}: {status}", self.id)).url;
        Channels::open(self.cri.bed(), &url)
    }
}
