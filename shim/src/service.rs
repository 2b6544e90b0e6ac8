//! Task v2 and v3 over ttrpc: decodes calls, and encodes what [`Tasks`] answers.

use std::{path::Path, process, sync::Arc};

use async_trait::async_trait;
use containerd_shim::util::convert_to_any;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
        ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
        StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    protobuf::well_known_types::any::Any,
    shim::oci::ProcessDetails,
    shim_async::{Task, create_task},
    ttrpc::{
        self,
        r#async::{Server, TtrpcContext},
    },
};
use oci_spec::runtime::LinuxResources;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    error::Error,
    execs::ExecPhase,
    options,
    pod::Pod,
    sandbox::{CreateRequest, ExecRequest, Exit, Launcher, Sandbox, Size},
    stdio::StdioPaths,
    tasks::{Phase, Tasks, timestamp},
};

/// Version 3 of the task API, which the protos are made from, is a renamed copy of version 2: same messages, same meaning.
const V2: &str = "containerd.task.v2.Task";

/// The task service.
pub(crate) struct TaskService<L: Launcher> {
    tasks: Arc<Tasks<L>>,
    pod: Pod,
    shutdown: watch::Sender<bool>,
}

impl<L: Launcher> TaskService<L> {
    /// `pod` is the one that the daemon holds, if any. `shutdown` turns true when containerd has no use for the daemon any
    /// more.
    pub(crate) fn new(tasks: Arc<Tasks<L>>, pod: Pod, shutdown: watch::Sender<bool>) -> Self {
        Self { tasks, pod, shutdown }
    }

    /// Registers it under both of its names.
    pub(crate) fn register(self, server: Server) -> Server {
        let service = Arc::new(self);
        let v3 = create_task(Arc::clone(&service) as Arc<dyn Task + Send + Sync>);
        // The generated constructor knows one name only.
        let v2 = create_task(service).into_values().map(|methods| (V2.to_owned(), methods)).collect();
        server.register_service(v3).register_service(v2)
    }
}

/// Runs to its end even when the client goes away half-way: a half-made sandbox is worse than one nobody asked for.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> ttrpc::Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INTERNAL, panic.to_string()))),
    }
}

/// What is said of any process of a task.
fn state(bundle: &Path, stdio: &StdioPaths, status: Status, exit: Option<Exit>) -> StateResponse {
    StateResponse {
        bundle: bundle.to_string_lossy().into_owned(),
        status: status.into(),
        stdin: stdio.stdin.clone(),
        stdout: stdio.stdout.clone(),
        stderr: stdio.stderr.clone(),
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map(timestamp).into(),
        ..StateResponse::default()
    }
}

/// A value that containerd passes as JSON. Source: containerd's `typeurl`.
fn of_json<T: DeserializeOwned>(what: &'static str, any: Option<&Any>) -> Result<T, Error> {
    let bytes = any.map_or(&[][..], |any| &any.value);
    serde_json::from_slice(bytes).map_err(|error| Error::Request { what, why: error.to_string() })
}

fn process_info((pid, exec_id): (u32, Option<String>)) -> ProcessInfo {
    let details = exec_id.map(|exec_id| ProcessDetails { exec_id, ..ProcessDetails::default() });
    // It is for people, and can't be too large.
    let info = details.and_then(|details| convert_to_any(Box::new(details)).ok());
    ProcessInfo { pid, info: info.into(), ..ProcessInfo::default() }
}

#[async_trait]
impl<L: Launcher> Task for TaskService<L> {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(CHECKPOINT.into());
        }
        let options = request.options.as_ref().map(options::config).transpose()?.unwrap_or_default();
        let request = CreateRequest {
            id: request.id,
            bundle: request.bundle.into(),
            rootfs: request.rootfs,
            stdio: StdioPaths { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
            terminal: request.terminal,
            options,
        };
        let tasks = Arc::clone(&self.tasks);
        let pid = to_the_end(async move {
            let id = request.id.clone();
            tasks.create(request).await.inspect_err(|error| log::warn!("create {id}: {error}"))
        })
        .await?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let tasks = Arc::clone(&self.tasks);
        let pid = to_the_end(async move {
            match request.exec_id.as_str() {
                "" => tasks.start(&request.id).await,
                exec_id => tasks.start_exec(&request.id, exec_id).await,
            }
        })
        .await?;
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let tasks = Arc::clone(&self.tasks);
        let (pid, exit) = to_the_end(async move {
            match request.exec_id.as_str() {
                "" => tasks.delete(&request.id).await,
                exec_id => tasks.delete_exec(&request.id, exec_id).await,
            }
        })
        .await?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..DeleteResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let (task, phase) = self.tasks.state(&request.id).await?;
        if !request.exec_id.is_empty() {
            let exec = self.tasks.get_exec(&request.id, &request.exec_id)?;
            let (status, exit) = match exec.phase().await {
                ExecPhase::Added => (Status::CREATED, None),
                ExecPhase::Running => (Status::RUNNING, None),
                ExecPhase::Stopped(exit) => (Status::STOPPED, Some(exit)),
            };
            return Ok(StateResponse {
                id: task.id.clone(),
                exec_id: request.exec_id,
                pid: exec.pid(),
                terminal: exec.terminal(),
                ..state(&task.bundle, exec.stdio(), status, exit)
            });
        }
        let (status, exit) = match phase {
            Phase::Created => (Status::CREATED, None),
            Phase::Running => (Status::RUNNING, None),
            Phase::Paused => (Status::PAUSED, None),
            Phase::Stopped(exit) => (Status::STOPPED, Some(exit)),
        };
        Ok(StateResponse {
            id: task.id.clone(),
            pid: task.sandbox.pid(),
            terminal: task.terminal,
            ..state(&task.bundle, &task.stdio, status, exit)
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let exit = match request.exec_id.as_str() {
            "" => self.tasks.wait(&request.id).await?,
            exec_id => self.tasks.get_exec(&request.id, exec_id)?.wait().await?,
        };
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        match request.exec_id.as_str() {
            "" => self.tasks.kill(&request.id, request.signal, request.all).await?,
            exec_id => self.tasks.get_exec(&request.id, exec_id)?.kill(request.signal)?,
        }
        Ok(Empty::default())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let pids = self.tasks.pids(&request.id)?;
        let processes = pids.into_iter().map(process_info).collect();
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let stats = self.tasks.stats(&request.id).await?;
        Ok(StatsResponse { stats: Some(stats).into(), ..StatsResponse::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        match request.exec_id.as_str() {
            _ if !request.stdin => {}
            "" => self.tasks.close_stdin(&request.id)?,
            exec_id => self.tasks.get_exec(&request.id, exec_id)?.close_stdin(),
        }
        Ok(Empty::default())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        // A restarted containerd asks for the pod as if it were a task, and takes an error for a daemon that is lost.
        let task_pid = match self.pod.status(&request.id) {
            Ok(status) => status.pid,
            Err(_) => self.tasks.get(&request.id)?.sandbox.pid(),
        };
        Ok(ConnectResponse {
            shim_pid: process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        // A pod's daemon is told so with each of its containers; it stays for the others, and for the pod that it holds.
        if self.tasks.is_empty() && !self.pod.is_held() {
            self.shutdown.send_replace(true);
        }
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let added = ExecRequest {
            process: of_json("process", request.spec.as_ref())?,
            id: request.exec_id,
            stdio: StdioPaths { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
            terminal: request.terminal,
        };
        self.tasks.exec(&request.id, added).await?;
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let tasks = Arc::clone(&self.tasks);
        to_the_end(async move { tasks.pause(&request.id).await }).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let tasks = Arc::clone(&self.tasks);
        to_the_end(async move { tasks.resume(&request.id).await }).await?;
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources: LinuxResources = of_json("resources", request.resources.as_ref())?;
        let tasks = Arc::clone(&self.tasks);
        to_the_end(async move { tasks.update(&request.id, &resources).await }).await?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let characters = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Size { columns: characters(request.width), rows: characters(request.height) };
        match request.exec_id.as_str() {
            "" => self.tasks.get(&request.id)?.sandbox.resize(size)?,
            exec_id => self.tasks.get_exec(&request.id, exec_id)?.resize(size)?,
        }
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(CHECKPOINT.into())
    }
}

const CHECKPOINT: Error = Error::Unsupported {
    what: "checkpoint",
    why: "CRIU can't restore the runner's memory mappings; make the guest save its state to a volume",
};
