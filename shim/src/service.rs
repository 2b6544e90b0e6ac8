//! Task v2 and v3 over ttrpc: decodes calls, and encodes what [`Tasks`] answers.

use std::{collections::HashMap, process, sync::Arc};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
        ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
        StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim_async::{Task, create_task},
    ttrpc::{
        self,
        r#async::{Server, Service, TtrpcContext},
    },
};
use tokio::sync::watch;

use crate::{
    error::Error,
    options,
    sandbox::{CreateRequest, Launcher, Sandbox},
    stdio::StdioPaths,
    tasks::{Phase, Tasks, timestamp},
};

/// Version 3 of the task API, which the protos are made from, is a renamed copy of version 2: same messages, same meaning.
const V2: &str = "containerd.task.v2.Task";

/// Registered without methods: each call of it answers UNIMPLEMENTED.
const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

const NO_EXEC: Error = Error::Unsupported {
    what: "exec",
    why: "the container runs one guest; start another container for another command",
};

/// The task service.
pub(crate) struct TaskService<L: Launcher> {
    tasks: Arc<Tasks<L>>,
    shutdown: watch::Sender<bool>,
}

impl<L: Launcher> TaskService<L> {
    /// `shutdown` turns true when containerd has no use for the daemon any more.
    pub(crate) fn new(tasks: Arc<Tasks<L>>, shutdown: watch::Sender<bool>) -> Self {
        Self { tasks, shutdown }
    }

    /// Registers it under both of its names.
    pub(crate) fn register(self, server: Server) -> Server {
        let service = Arc::new(self);
        let v3 = create_task(Arc::clone(&service) as Arc<dyn Task + Send + Sync>);
        // The generated constructor knows one name only.
        let v2 = create_task(service).into_values().map(|methods| (V2.to_owned(), methods)).collect();
        // A service that ttrpc does not know answers INVALID_ARGUMENT, which a client can't tell from a bad call.
        let none = Service { methods: HashMap::new(), streams: HashMap::new() };
        server.register_service(v3).register_service(v2).register_service(HashMap::from([(SANDBOX.to_owned(), none)]))
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

fn no_exec(exec_id: &str) -> Result<(), Error> {
    if exec_id.is_empty() { Ok(()) } else { Err(Error::NotFound(exec_id.to_owned())) }
}

#[async_trait]
impl<L: Launcher> Task for TaskService<L> {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        if request.terminal {
            return Err(Error::Unsupported { what: "a terminal", why: "run it without -t" }.into());
        }
        if !request.checkpoint.is_empty() {
            return Err(CHECKPOINT.into());
        }
        let options = request.options.as_ref().map(options::config).transpose()?.unwrap_or_default();
        let request = CreateRequest {
            id: request.id,
            bundle: request.bundle.into(),
            rootfs: request.rootfs,
            stdio: StdioPaths { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
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
        no_exec(&request.exec_id)?;
        let tasks = Arc::clone(&self.tasks);
        let pid = to_the_end(async move { tasks.start(&request.id).await }).await?;
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        no_exec(&request.exec_id)?;
        let tasks = Arc::clone(&self.tasks);
        let (pid, exit) = to_the_end(async move { tasks.delete(&request.id).await }).await?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..DeleteResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        no_exec(&request.exec_id)?;
        let (task, phase) = self.tasks.state(&request.id).await?;
        let (status, exit) = match phase {
            Phase::Created => (Status::CREATED, None),
            Phase::Running => (Status::RUNNING, None),
            Phase::Stopped(exit) => (Status::STOPPED, Some(exit)),
        };
        Ok(StateResponse {
            id: task.id.clone(),
            bundle: task.bundle.to_string_lossy().into_owned(),
            pid: task.sandbox.pid(),
            status: status.into(),
            stdin: task.stdio.stdin.clone(),
            stdout: task.stdio.stdout.clone(),
            stderr: task.stdio.stderr.clone(),
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(timestamp).into(),
            ..StateResponse::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        no_exec(&request.exec_id)?;
        let exit = self.tasks.wait(&request.id).await?;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        no_exec(&request.exec_id)?;
        self.tasks.kill(&request.id, request.signal, request.all)?;
        Ok(Empty::default())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let pids = self.tasks.pids(&request.id)?;
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid, ..ProcessInfo::default() }).collect();
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let stats = self.tasks.stats(&request.id).await?;
        Ok(StatsResponse { stats: Some(stats).into(), ..StatsResponse::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        no_exec(&request.exec_id)?;
        if request.stdin {
            self.tasks.close_stdin(&request.id)?;
        }
        Ok(Empty::default())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task = self.tasks.get(&request.id)?;
        Ok(ConnectResponse {
            shim_pid: process::id(),
            task_pid: task.sandbox.pid(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        // A pod's daemon is told so with each of its containers; it stays for the others.
        if self.tasks.is_empty() {
            self.shutdown.send_replace(true);
        }
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> ttrpc::Result<Empty> {
        Err(NO_EXEC.into())
    }

    async fn pause(&self, _: &TtrpcContext, _: PauseRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported { what: "pause", why: "it is not built yet; stop the container instead" }.into())
    }

    async fn resume(&self, _: &TtrpcContext, _: ResumeRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported { what: "resume", why: "nothing can be paused yet" }.into())
    }

    async fn update(&self, _: &TtrpcContext, _: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported {
            what: "update",
            why: "limits are fixed at creation for now; create the container anew with others",
        }
        .into())
    }

    async fn resize_pty(&self, _: &TtrpcContext, _: ResizePtyRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported { what: "resizing a terminal", why: "there are no terminals yet" }.into())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(CHECKPOINT.into())
    }
}

const CHECKPOINT: Error = Error::Unsupported {
    what: "checkpoint",
    why: "CRIU can't restore the runner's memory mappings; make the guest save its state to a volume",
};
