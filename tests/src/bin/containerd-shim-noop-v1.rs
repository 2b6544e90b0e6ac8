//! A shim that runs nothing: whatever any shim must cost, and no more. `bench` measures the others against it.
//!
//! It does what the contract asks of all: one daemon for each container or group, both versions of the task API, the
//! events of a task's life. But its tasks are no processes. They end when they are started, with exit code 0.

use std::{
    collections::HashMap,
    env, fs,
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixListener, process::CommandExt},
    },
    path::Path,
    process::{self, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use containerd_shim::{
    Flags, StartOpts,
    event::Event,
    util::{convert_to_any, timestamp},
};
use containerd_shim_protos::{
    api::{
        ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, Empty,
        ForwardRequest, KillRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, Status,
        WaitRequest, WaitResponse,
    },
    events::task::{TaskCreate, TaskDelete, TaskExit, TaskStart},
    protobuf::Message,
    shim::event::Envelope,
    shim_async::{Client, EventsClient, Task, create_task},
    ttrpc::{
        self,
        r#async::{Server, TtrpcContext, transport::Listener},
        context,
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};

/// The action under which `start` runs the daemon.
const SERVE: &str = "serve";

/// Annotation that names the containers of one daemon.
const GROUP: &str = "io.containerd.runc.v2.group";

/// How long connections may take to end, and nanoseconds that containerd has to take an event.
const PATIENCE: Duration = Duration::from_secs(3);
const EVENT_TIMEOUT: i64 = 3_000_000_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let flags = containerd_shim::parse(&arguments).context("read the command line")?;
    match flags.action.as_str() {
        "start" => start(&flags),
        "delete" => print(&DeleteResponse::default().write_to_bytes().context("encode the answer")?),
        SERVE => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("start the event loop")?.block_on(serve(&flags))
        }
        _ => bail!("a shim that runs nothing, for benches; containerd starts it"),
    }
}

/// Runs in the bundle. Makes sure of a daemon and answers with its address.
fn start(flags: &Flags) -> Result<()> {
    let options =
        StartOpts { namespace: flags.namespace.clone(), address: flags.address.clone(), ..StartOpts::default() };
    let address = options.socket_address(&group()?.unwrap_or_else(|| flags.id.clone()));
    let path = path_of(&address);
    fs::create_dir_all(path.parent().context("the socket has no folder")?).context("make the socket's folder")?;
    match UnixListener::bind(path) {
        Ok(listener) => {
            Command::new(env::current_exe().context("find own executable")?)
                .args(["-namespace", &flags.namespace, "-id", &flags.id, "-socket", &address, SERVE])
                .stdin(OwnedFd::from(listener))
                // containerd reads until all have closed it.
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .context("start the daemon")?;
        }
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => return Err(error).with_context(|| format!("bind {}", path.display())),
    }
    let version: u32 = env::var("MAX_SHIM_VERSION").ok().and_then(|newest| newest.parse().ok()).unwrap_or(2);
    let answer = serde_json::json!({"version": version.clamp(2, 3), "address": address, "protocol": "ttrpc"});
    print(answer.to_string().as_bytes())
}

fn group() -> Result<Option<String>> {
    let spec = fs::read("config.json").context("read the runtime spec")?;
    let spec: serde_json::Value = serde_json::from_slice(&spec).context("decode the runtime spec")?;
    Ok(spec["annotations"][GROUP].as_str().map(str::to_owned))
}

fn path_of(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

fn print(answer: &[u8]) -> Result<()> {
    io::stdout().write_all(answer).context("answer containerd")
}

/// The daemon: serves at the listener that is its standard input until it has no task and is told to go.
async fn serve(flags: &Flags) -> Result<()> {
    env::set_current_dir("/").context("leave the bundle")?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().context("take the listener")?);
    listener.set_nonblocking(true).context("take the listener")?;
    let listener = Listener::try_from(listener).context("take the listener")?;

    let (events, queue) = mpsc::unbounded_channel();
    tokio::spawn(publish(env::var("TTRPC_ADDRESS").context("TTRPC_ADDRESS")?, queue));
    let done = Arc::new(Notify::new());
    let tasks = Arc::new(Tasks {
        namespace: flags.namespace.clone(),
        tasks: Mutex::default(),
        events,
        done: Arc::clone(&done),
    });
    let v3 = create_task(Arc::clone(&tasks) as Arc<dyn Task + Send + Sync>);
    // The same messages under the name of containerd 1.x.
    let v2 = create_task(tasks).into_values().map(|methods| ("containerd.task.v2.Task".to_owned(), methods)).collect();
    let mut server = Server::new().add_listener(listener).register_service(v3).register_service(v2);
    server.start().await.context("serve")?;
    done.notified().await;
    fs::remove_file(path_of(&flags.socket)).context("remove the socket")?;
    // containerd ends the connection when it has read the answer.
    let _ = timeout(PATIENCE, server.shutdown()).await;
    Ok(())
}

async fn publish(address: String, mut queue: mpsc::UnboundedReceiver<ForwardRequest>) -> Result<()> {
    let client = EventsClient::new(Client::connect(&format!("unix://{address}")).await?);
    while let Some(event) = queue.recv().await {
        client.forward(context::with_timeout(EVENT_TIMEOUT), &event).await?;
    }
    Ok(())
}

struct Tasks {
    namespace: String,
    /// Whether each has been started, and with it ended.
    tasks: Mutex<HashMap<String, watch::Sender<bool>>>,
    events: mpsc::UnboundedSender<ForwardRequest>,
    done: Arc<Notify>,
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<bool>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(&self, id: &str) -> ttrpc::Result<watch::Receiver<bool>> {
        self.lock().get(id).map(watch::Sender::subscribe).ok_or_else(|| not_found(id))
    }

    fn publish(&self, event: impl Event) {
        let mut envelope = Envelope { topic: event.topic(), namespace: self.namespace.clone(), ..Envelope::default() };
        envelope.timestamp = timestamp().ok().into();
        envelope.event = convert_to_any(Box::new(event)).ok().into();
        let request = ForwardRequest { envelope: Some(envelope).into(), ..ForwardRequest::default() };
        // Lost when containerd has gone away: nobody is left to be told.
        let _ = self.events.send(request);
    }
}

fn not_found(id: &str) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::NOT_FOUND, format!("no task {id}")))
}

#[async_trait]
impl Task for Tasks {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        self.lock().insert(request.id.clone(), watch::Sender::new(false));
        let CreateTaskRequest { id: container_id, bundle, .. } = request;
        self.publish(TaskCreate { container_id, bundle, pid: process::id(), ..TaskCreate::default() });
        Ok(CreateTaskResponse { pid: process::id(), ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let (id, pid) = (request.id, process::id());
        match self.lock().get(&id) {
            Some(started) => started.send_replace(true),
            None => return Err(not_found(&id)),
        };
        self.publish(TaskStart { container_id: id.clone(), pid, ..TaskStart::default() });
        self.publish(TaskExit { container_id: id.clone(), id, pid, ..TaskExit::default() });
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let status = if *self.subscribe(&request.id)?.borrow() { Status::STOPPED } else { Status::CREATED };
        Ok(StateResponse { id: request.id, pid: process::id(), status: status.into(), ..StateResponse::default() })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let mut started = self.subscribe(&request.id)?;
        // An error says that it was deleted, which is an end as well.
        let _ = started.wait_for(|started| *started).await;
        Ok(WaitResponse { exited_at: timestamp().ok().into(), ..WaitResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let (id, pid) = (request.id, process::id());
        self.lock().remove(&id).ok_or_else(|| not_found(&id))?;
        self.publish(TaskDelete { container_id: id, pid, ..TaskDelete::default() });
        Ok(DeleteResponse { pid, exited_at: timestamp().ok().into(), ..DeleteResponse::default() })
    }

    async fn kill(&self, _: &TtrpcContext, _: KillRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::default())
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        Ok(ConnectResponse { shim_pid: process::id(), task_pid: process::id(), ..ConnectResponse::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        if self.lock().is_empty() {
            self.done.notify_one();
        }
        Ok(Empty::default())
    }
}
