//! Containers that a runner process builds: the real [`Launcher`].
//!
//! Spawns `lighter-ENGINE create`, hands it the plan and the streams, and reads its answer. The runner ends, and the
//! container's init, its grandchild, becomes the daemon's child.

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    os::{fd::AsRawFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use async_trait::async_trait;
use command_fds::{CommandFdExt, FdMapping};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use lighter_oci::{ANNOTATION_PREFIX, Cgroup, Plan, PlanRequest};
use lighter_runtime_api::protocol::{FD_STATUS, FD_STDERR, FD_STDIN, FD_STDOUT, Status};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    sync::Mutex,
};

use crate::{
    cgroup::{self, Cpuset, Folders, Known},
    error::Error,
    process::{Child, reap_strangers},
    rootfs,
    sandbox::{CreateRequest, Exit, Launcher, Sandbox},
    stdio::{self, GuestStdio, HeldStdio},
};

/// The folder of compiled code, for all containers of the node.
const CACHE: &str = "/var/lib/lighter/cache";
/// Bytes of compiled code that are kept for each engine.
const CACHE_BYTES: u64 = 4 << 30;
/// libcontainer's socket in a container's state folder: connecting to it is the start signal.
const START_SOCKET: &str = "notify.sock";
/// The engines of this build.
const ENGINES: &[&str] = &["wasmtime"];
const DEFAULT_ENGINE: &str = "wasmtime";

/// Launches runners of the engines that are installed beside the shim.
#[derive(Debug)]
pub(crate) struct Runners {
    /// The folder of the shim's executable.
    folder: PathBuf,
    /// The engine that the runtime's name asks for, such as `wasmtime` for `containerd-shim-wasmtime-v1`.
    by_name: Option<&'static str>,
}

impl Runners {
    /// `argv0` is the name under which containerd started the shim.
    pub(crate) fn new(argv0: &str) -> io::Result<Self> {
        let executable = env::current_exe()?;
        let folder = executable.parent().map(Path::to_owned).unwrap_or_default();
        let name = Path::new(argv0).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let runtime = name.strip_prefix("containerd-shim-").and_then(|n| n.rsplit_once("-v")).map(|(name, _)| name);
        let by_name = ENGINES.iter().copied().find(|engine| Some(*engine) == runtime);
        Ok(Self { folder, by_name })
    }

    fn engine(&self, plan: &Plan) -> Result<String, Error> {
        let annotations = plan.sandbox.annotations().as_ref();
        match annotations.and_then(|a| a.get(&format!("{ANNOTATION_PREFIX}engine"))) {
            Some(name) if ENGINES.contains(&name.as_str()) => Ok(name.clone()),
            Some(name) => Err(Error::UnknownEngine(name.clone())),
            None => Ok(self.by_name.unwrap_or(DEFAULT_ENGINE).to_owned()),
        }
    }
}

/// A container with its init.
#[derive(Debug)]
pub(crate) struct RunnerSandbox {
    id: String,
    init: Child,
    status: Mutex<BufReader<UnixStream>>,
    held: HeldStdio,
    cgroup: Cgroup,
    folders: Folders,
    leftovers: Leftovers,
}

/// What a container leaves on the host.
#[derive(Clone, Debug)]
pub(crate) struct Leftovers {
    id: String,
    cgroup: Option<Known>,
    state: PathBuf,
    rootfs: Option<PathBuf>,
}

impl Leftovers {
    /// Of a container of which only the bundle is known. A daemon that cleaned up left nothing of it.
    pub(crate) fn of_bundle(bundle: &Path, id: &str) -> Self {
        let state = bundle.join(Plan::STATE);
        // A runner makes the state before the cgroup.
        let cgroup = state.exists().then(|| Plan::cgroup_of(bundle, id).map(Known::Named));
        let cgroup = cgroup.and_then(|c| c.inspect_err(|error| log::warn!("clean up {id}: {error}")).ok());
        Self { id: id.to_owned(), cgroup, state, rootfs: Some(bundle.join("rootfs")) }
    }

    /// Ends what is left and removes it. Goes on after an error and returns the first.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let cgroup = self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.remove(&self.id));
        reap_strangers();
        let rootfs = self.rootfs.as_deref().map_or(Ok(()), rootfs::unmount);
        let state = match fs::remove_dir_all(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::system("remove state")(error)),
            _ => Ok(()),
        };
        cgroup.and(rootfs).and(state)
    }
}

#[async_trait]
impl Launcher for Runners {
    type Sandbox = RunnerSandbox;

    async fn create(&self, request: &CreateRequest) -> Result<RunnerSandbox, Error> {
        cgroup::anticipate_move();
        let mounted = (!request.rootfs.is_empty()).then(|| request.bundle.join("rootfs"));
        if let Some(target) = &mounted {
            rootfs::mount(&request.rootfs, target)?;
        }
        let mut leftovers = Leftovers {
            id: request.id.clone(),
            cgroup: None,
            state: request.bundle.join(Plan::STATE),
            rootfs: mounted.clone(),
        };
        let created = self.launch(request, mounted.as_deref(), &mut leftovers).await;
        if created.is_err()
            && let Err(error) = leftovers.remove()
        {
            log::error!("clean up after failed creation of {}: {error}", request.id);
        }
        created
    }
}

impl Runners {
    async fn launch(
        &self,
        request: &CreateRequest,
        rootfs: Option<&Path>,
        leftovers: &mut Leftovers,
    ) -> Result<RunnerSandbox, Error> {
        let mut plan = Plan::read(&PlanRequest {
            id: &request.id,
            bundle: &request.bundle,
            rootfs,
            systemd_cgroup: request.systemd_cgroup,
            cache: Path::new(CACHE),
            cache_bytes: CACHE_BYTES,
        })?;
        let engine = self.engine(&plan)?;
        let cpuset = Cpuset::take(&mut plan);
        leftovers.cgroup = Some(Known::Named(plan.cgroup.clone()));
        let (guest, held) = stdio::open(&request.stdio)?;
        let path = self.folder.join(format!("lighter-{engine}"));
        let (runner, status, mut said) = spawn(&path, &plan, guest)?;

        let mut status = BufReader::new(status);
        let answer = next_status(&mut status).await;
        // Before the runner ends and the init becomes ours to reap.
        let init = match &answer {
            Ok(Some(Status::Created { pid })) => Some(Child::new(*pid)?),
            _ => None,
        };
        let ended = runner.exited().await;
        match (answer?, init) {
            (Some(Status::Created { .. }), Some(init)) => {
                let folders = Folders::of(init.pid()).map_err(Error::system("find the container's cgroup"))?;
                leftovers.cgroup = Some(Known::Folders(folders.clone(), plan.cgroup.clone()));
                folders.bind(&cpuset).map_err(Error::system("bind the container to its CPUs"))?;
                Ok(RunnerSandbox {
                    id: request.id.clone(),
                    init,
                    status: Mutex::new(status),
                    held,
                    cgroup: plan.cgroup,
                    folders,
                    leftovers: leftovers.clone(),
                })
            }
            (Some(Status::Failed { message }), _) => Err(Error::Guest(with_details(message, &innermost(&mut said)))),
            (Some(Status::Created { .. } | Status::Started) | None, _) => Err(Error::RunnerDied {
                status: ended.status,
                said: with_details(String::new(), &innermost(&mut said)),
            }),
        }
    }
}

#[async_trait]
impl Sandbox for RunnerSandbox {
    fn pid(&self) -> u32 {
        self.init.pid()
    }

    async fn start(&self) -> Result<(), Error> {
        let mut status = self.status.lock().await;
        signal_start(&self.leftovers.state.join(&self.id))?;
        match next_status(&mut status).await? {
            Some(Status::Started) => Ok(()),
            Some(Status::Failed { message }) => Err(Error::Guest(message)),
            Some(Status::Created { .. }) | None => Err(Error::InitDied),
        }
    }

    async fn exited(&self) -> Exit {
        self.init.exited().await
    }

    fn kill(&self, signal: u32, all: bool) -> Result<(), Error> {
        let invalid = Error::Signal(signal);
        let number = i32::try_from(signal).map_err(|_| Error::Signal(signal))?;
        let signal = rustix::process::Signal::from_named_raw(number).ok_or(invalid)?;
        if all {
            for pid in self.pids()? {
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                // One that ended meanwhile needs no signal.
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(number).ok());
            }
            return Ok(());
        }
        self.init.kill(signal)
    }

    fn pids(&self) -> Result<Vec<u32>, Error> {
        Ok(self.folders.pids())
    }

    fn stats(&self) -> Result<Any, Error> {
        cgroup::stats(&self.cgroup, &self.id, self.init.pid())
    }

    fn close_stdin(&self) {
        self.held.close_stdin();
    }

    async fn remove(&self) -> Result<(), Error> {
        self.leftovers.remove()
    }
}

/// Starts a runner. Returns it, the status stream and what will hold its diagnostics.
fn spawn(path: &Path, plan: &Plan, guest: GuestStdio) -> Result<(Child, UnixStream, File), Error> {
    let (ours, theirs) = StdUnixStream::pair().map_err(Error::system("make status stream"))?;
    ours.set_nonblocking(true).map_err(Error::system("make status stream"))?;
    let json = serde_json::to_vec(plan).map_err(|error| Error::system("encode plan")(io::Error::from(error)))?;
    let said = memory_file("diagnostics", &[])?;
    let mapping = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
    let mut command = Command::new(path);
    command
        .arg("create")
        .env_clear()
        .stdin(memory_file("plan", &json)?)
        .stdout(Stdio::null())
        .stderr(said.try_clone().map_err(Error::system("make diagnostics"))?)
        .fd_mappings(vec![
            mapping(theirs.into(), FD_STATUS),
            mapping(guest.stdin, FD_STDIN),
            mapping(guest.stdout, FD_STDOUT),
            mapping(guest.stderr, FD_STDERR),
        ])
        .map_err(|error| Error::system("map descriptors")(io::Error::other(error)))?;
    let child = command.spawn().map_err(|source| Error::RunRunner { path: path.to_owned(), source })?;
    let runner = Child::new(child.id().cast_signed())?;
    let status = UnixStream::from_std(ours).map_err(Error::system("watch status stream"))?;
    Ok((runner, status, said))
}

/// A file without a name, at its start.
fn memory_file(name: &str, bytes: &[u8]) -> Result<File, Error> {
    let failed = Error::system::<io::Error>("make memory file");
    let name = CString::new(name).map_err(|error| failed(error.into()))?;
    let fd = rustix::fs::memfd_create(&*name, rustix::fs::MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

/// The next line, or `None` where the other side ended without one.
async fn next_status(stream: &mut BufReader<UnixStream>) -> Result<Option<Status>, Error> {
    let mut line = String::new();
    match stream.read_line(&mut line).await {
        Ok(0) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(Error::system("read status")(error)),
        Ok(_) => serde_json::from_str(&line).map(Some).map_err(|e| Error::system("read status")(io::Error::from(e))),
    }
}

/// Connects to libcontainer's start socket. By descriptor: a bundle's path may be longer than a socket's name may be.
fn signal_start(state: &Path) -> Result<(), Error> {
    let folder = File::open(state).map_err(Error::system("open container state"))?;
    let socket = format!("/proc/self/fd/{}/{START_SOCKET}", folder.as_raw_fd());
    // The init, which nobody but us starts, waits in accept; it reads until we close.
    let mut stream = StdUnixStream::connect(socket).map_err(Error::system("signal start"))?;
    stream.write_all(b"start container").map_err(Error::system("signal start"))
}

/// The first line of a runner's diagnostics, which is the innermost cause that libcontainer traced.
fn innermost(said: &mut File) -> String {
    let mut text = String::new();
    let read = said.rewind().and_then(|()| said.read_to_string(&mut text));
    match read {
        Ok(_) => text.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned(),
        Err(_) => String::new(),
    }
}

fn with_details(message: String, details: &str) -> String {
    if details.is_empty() || message.contains(details) { message } else { format!("{message} ({details})") }
}
