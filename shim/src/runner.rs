//! Containers that a runner process builds: the real [`Launcher`].
//!
//! Turns the bundle into a plan, has `lighter-ENGINE create` build it, and removes what it leaves.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use containerd_shim::Flags;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use lighter_launch::{Child, Folders, GuestStdio, Inherited, Init, Runner, anticipate_move, hooks, reap_strangers};
use lighter_oci::{
    By, Cache, Cgroup, Choice, Config, ContainerImage, Guest, Hooks, Plan, PlanRequest, Program, Source, listed,
};
use lighter_runtime_api::protocol::{ExecPlan, started_at};
use oci_spec::runtime::{LinuxMemory, LinuxNamespaceType, LinuxResources, Spec};

use crate::{
    bound::Bound,
    cgroup::{self, Cpuset, Known},
    error::Error,
    executable::Executable,
    freezer::Freezer,
    logger::Owner,
    oom::OutOfMemory,
    pod::Pod,
    rootfs,
    sandbox::{CreateRequest, ExecRequest, Execution, Exit, Launcher, Sandbox, Size, Unwanted},
    stats::Figures,
    stdio::{Opened, Streams, Wanted},
    update::update,
};

/// The engines that run WebAssembly, of which each is a program `lighter-NAME` beside the shim. The first is the default.
const ENGINES: &[&str] = &["wasmtime", "wasmedge", "wamr"];
/// Runs native programs, and nothing else.
const NATIVE: &str = Program::NATIVE;

/// Launches runners of the engines that are installed beside the shim.
#[derive(Clone, Debug)]
pub(crate) struct Runners {
    /// The folder of the shim's executable.
    folder: PathBuf,
    /// The engine that the runtime's name asks for, such as `wasmtime` for `containerd-shim-wasmtime-v1`.
    by_name: Option<&'static str>,
    /// containerd's gRPC socket.
    address: PathBuf,
    /// containerd's namespace.
    namespace: String,
    /// The daemon's pod, if it holds one.
    pod: Pod,
    /// The program that is in native containers for a moment, once there was one.
    native: Arc<OnceLock<Executable>>,
}

impl Runners {
    /// `argv0` is the name under which containerd started the shim; `flags` say where containerd is.
    pub(crate) fn new(argv0: &str, flags: &Flags, pod: Pod) -> io::Result<Self> {
        let executable = env::current_exe()?;
        let folder = executable.parent().map(Path::to_owned).unwrap_or_default();
        let name = Path::new(argv0).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let runtime = name.strip_prefix("containerd-shim-").and_then(|n| n.rsplit_once("-v")).map(|(name, _)| name);
        let by_name = ENGINES.iter().copied().find(|engine| Some(*engine) == runtime);
        let (address, namespace) = (PathBuf::from(&flags.address), flags.namespace.clone());
        Ok(Self { folder, by_name, address, namespace, pod, native: Arc::default() })
    }

    /// The engine that runs a plan. What is native needs no choice.
    fn engine(&self, plan: &Plan, options: &Config, node: &Config) -> Result<String, Error> {
        let by_config = |config: &Config| By::Config(format!("the configuration {}", config.origin));
        let known: Vec<_> = ENGINES.iter().copied().chain(plan.engine.as_ref().map(|_| NATIVE)).collect();
        let wishes = [
            (By::Annotation, plan.engine.as_deref()),
            (By::RuntimeName, self.by_name),
            (by_config(options), options.engine.as_deref()),
            (by_config(node), node.engine.as_deref()),
        ];
        let choice = Choice::new(wishes, &known)?;
        match plan.program {
            Program::Native => Ok(NATIVE.to_owned()),
            Program::Wasm if choice.engine == NATIVE => {
                Err(Error::NotNative { engine: NATIVE, entrypoint: plan.entrypoint.clone() })
            }
            Program::Wasm => Ok(choice.engine),
        }
    }

    /// Makes the error about a runner that could not be started say so where it isn't there.
    fn explain(&self, engine: &str, path: &Path, error: lighter_launch::Error) -> Error {
        if path.exists() {
            return error.into();
        }
        let installed = ENGINES.iter().chain([&NATIVE]).copied().filter(|name| self.runner(name).exists());
        let installed = listed(&installed.collect::<Vec<_>>(), "and");
        Error::NoRunner { engine: engine.to_owned(), path: path.to_owned(), installed }
    }

    /// The image of a container.
    fn image(&self, id: &str) -> Source {
        Source::Image(ContainerImage {
            address: self.address.clone(),
            namespace: self.namespace.clone(),
            container: id.to_owned(),
        })
    }

    /// Whose streams those of a process are.
    fn owner<'a>(&'a self, id: &'a str) -> Owner<'a> {
        Owner { id, namespace: &self.namespace }
    }

    fn runner(&self, engine: &str) -> PathBuf {
        self.folder.join(format!("lighter-{engine}"))
    }

    /// By what path a runner is executed. A native container's must not be one that the container could write to.
    fn executable(&self, engine: &str) -> Result<PathBuf, Error> {
        let path = self.runner(engine);
        if engine != NATIVE || !path.exists() {
            return Ok(path);
        }
        if let Some(executable) = self.native.get() {
            return Ok(executable.path());
        }
        let executable = Executable::shield(&path).map_err(Error::system("shield the runner of native programs"))?;
        // Of two at once one stays.
        Ok(self.native.get_or_init(|| executable).path())
    }
}

/// A container with its init.
#[derive(Debug)]
pub(crate) struct RunnerSandbox {
    id: String,
    bundle: PathBuf,
    /// What started it, for what is added to it.
    runners: Runners,
    options: Config,
    /// What its init is, and the name of that in the image.
    program: Program,
    entrypoint: String,
    /// Whether the kernel ends whatever is in it with its init.
    own_pids: bool,
    init: Init,
    init_started: u64,
    streams: Streams,
    cgroup: Cgroup,
    figures: Figures,
    folders: Folders,
    /// How much linear memory its guests may have; nothing where they are native.
    bound: Option<Bound>,
    /// What the kernel has killed in it.
    kills: OutOfMemory,
    leftovers: Leftovers,
}

impl RunnerSandbox {
    fn freezer(&self) -> Result<Freezer, Error> {
        let none = || Error::Cgroup { path: self.cgroup.path.clone(), why: "it has no freezer".to_owned() };
        Freezer::of(&self.folders).ok_or_else(none)
    }
}

/// A process that was added to a container.
#[derive(Debug)]
pub(crate) struct RunnerExec {
    id: String,
    process: Child,
    streams: Streams,
}

/// What a container leaves on the host.
#[derive(Clone, Debug)]
pub(crate) struct Leftovers {
    id: String,
    cgroup: Option<Known>,
    state: PathBuf,
    rootfs: Option<PathBuf>,
    /// What is to be told of its end.
    hooks: Hooks,
}

impl Leftovers {
    /// Of a container of which only the bundle is known. A daemon that cleaned up left nothing of it.
    pub(crate) fn of_bundle(bundle: &Path, id: &str) -> Self {
        let state = bundle.join(Plan::STATE);
        // A runner makes the state before the cgroup.
        let cgroup = state.exists().then(|| Plan::cgroup_of(bundle, id).map(Known::Named));
        let cgroup = cgroup.and_then(|c| c.inspect_err(|error| log::warn!("clean up {id}: {error}")).ok());
        let hooks = state.exists().then(|| Hooks::of_bundle(bundle, id));
        let hooks = hooks.and_then(|h| h.inspect_err(|error| log::warn!("clean up {id}: {error}")).ok());
        let rootfs = Some(bundle.join("rootfs"));
        Self { id: id.to_owned(), cgroup, state, rootfs, hooks: hooks.unwrap_or_default() }
    }

    /// Ends what is left and removes it. Goes on after an error and returns the first.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        let cgroup = self.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.remove(&self.id));
        reap_strangers();
        let state = match fs::remove_dir_all(&self.state) {
            // Once: who has no state any more, or never had, has no hooks to come.
            Ok(()) => {
                hooks::poststop(&self.hooks).await;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::system("remove state")(error)),
        };
        let rootfs = self.rootfs.as_deref().map_or(Ok(()), rootfs::unmount);
        cgroup.and(rootfs).and(state)
    }
}

#[async_trait]
impl Launcher for Runners {
    type Sandbox = RunnerSandbox;

    async fn create(&self, request: &CreateRequest, unwanted: Unwanted) -> Result<RunnerSandbox, Error> {
        anticipate_move();
        let mounted = (!request.rootfs.is_empty()).then(|| request.bundle.join("rootfs"));
        if let Some(target) = &mounted {
            rootfs::mount(&request.rootfs, target)?;
        }
        let mut leftovers = Leftovers {
            id: request.id.clone(),
            cgroup: None,
            state: request.bundle.join(Plan::STATE),
            rootfs: mounted.clone(),
            hooks: Hooks::default(),
        };
        let created = self.launch(request, mounted.as_deref(), &mut leftovers, unwanted).await;
        if created.is_err() {
            match leftovers.remove().await {
                Ok(()) => self.pod.forget(&request.id),
                Err(error) => log::error!("clean up after failed creation of {}: {error}", request.id),
            }
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
        unwanted: Unwanted,
    ) -> Result<RunnerSandbox, Error> {
        let (options, node) = (&request.options, Config::of_node()?);
        let mut plan = Plan::read(&PlanRequest {
            rootfs,
            module: self.image(&request.id),
            ..plan_request(&request.id, &request.bundle, options, &node)
        })?;
        leftovers.hooks = plan.hooks.clone();
        plan.set_hook_env(&own_env());
        let engine = self.engine(&plan, options, &node)?;
        let cpuset = Cpuset::take(&mut plan);
        let size = size_of(&plan);
        let own_pids = has_own_pids(&plan.sandbox);
        self.pod.add_files(&mut plan.sandbox)?;
        self.pod.note(&request.id, &request.bundle, &plan.cgroup)?;
        leftovers.cgroup = Some(Known::Named(plan.cgroup.clone()));
        let wanted = Wanted { paths: &request.stdio, owner: self.owner(&request.id) };
        let (guest, opened) = Opened::new(wanted, request.terminal, &request.bundle, &mut plan).await?;
        let wasm = plan.program == Program::Wasm;
        let bound = wasm.then(|| Bound::new(plan.guest.memory)).transpose().map_err(Error::system(BOUND))?;
        let guest = inherited(guest, bound.as_ref())?;
        let path = self.runner(&engine);
        let executable = self.executable(&engine)?;
        let runner = Runner::spawn(&executable, &plan, guest).map_err(|error| self.explain(&engine, &path, error))?;
        let init = unless(unwanted, &runner, runner.created()).await?;
        let streams = opened.connect(wanted, size).await?;
        let folders = Folders::of(init.pid()).map_err(Error::system("find the container's cgroup"))?;
        leftovers.cgroup = Some(Known::Folders(folders.clone(), plan.cgroup.clone()));
        cpuset.bind(&folders).map_err(Error::system("bind the container to its CPUs"))?;
        Ok(RunnerSandbox {
            id: request.id.clone(),
            bundle: request.bundle.clone(),
            runners: self.clone(),
            options: options.clone(),
            program: plan.program,
            entrypoint: plan.entrypoint,
            own_pids,
            init_started: started_at(init.pid()).map_err(Error::system("look at the container's init"))?,
            init,
            streams,
            cgroup: plan.cgroup,
            figures: Figures::default(),
            bound,
            kills: OutOfMemory::watch(&folders),
            folders,
            leftovers: leftovers.clone(),
        })
    }
}

/// What a runner makes. Once nobody wants it any more the runner is killed, and fails: it may wait long for a compiler, and
/// keeps the root filesystem busy. What it had made by then is made.
async fn unless<T>(
    mut unwanted: Unwanted,
    runner: &Runner,
    made: impl Future<Output = Result<T, lighter_launch::Error>>,
) -> Result<T, lighter_launch::Error> {
    let mut made = pin!(made);
    tokio::select! {
        biased;
        made = &mut made => return made,
        Ok(_) = unwanted.wait_for(|unwanted| *unwanted) => {}
    }
    let _ = runner.kill(rustix::process::Signal::KILL);
    made.await
}

/// The operation of a [`Bound`].
const BOUND: &str = "bound the guest's memory";

/// What a process of a container inherits.
fn inherited(stdio: GuestStdio, bound: Option<&Bound>) -> Result<Inherited, Error> {
    let bound = bound.map(Bound::readable).transpose().map_err(Error::system(BOUND))?;
    Ok(Inherited { stdio, bound })
}

/// This process's environment.
fn own_env() -> Vec<String> {
    let utf8 = |(name, value): (OsString, OsString)| Some(format!("{}={}", name.to_str()?, value.to_str()?));
    env::vars_os().filter_map(utf8).collect()
}

/// What both a container and what is added to it are planned with.
fn plan_request<'a>(id: &'a str, bundle: &'a Path, options: &Config, node: &Config) -> PlanRequest<'a> {
    PlanRequest {
        id,
        bundle,
        rootfs: None,
        module: Source::Rootfs,
        otherwise: None,
        systemd_cgroup: options.systemd_cgroup.or(node.systemd_cgroup).unwrap_or(false),
        cache: Path::new(Cache::NODE),
        cache_bytes: options.cache_size.or(node.cache_size).unwrap_or(Cache::NODE_BYTES),
        compilers: options.compilers.or(node.compilers),
        allow_privileged: options.allow_privileged.or(node.allow_privileged).unwrap_or(false),
    }
}

/// The size that a plan's terminal begins with.
fn size_of(plan: &Plan) -> Option<Size> {
    let size = plan.sandbox.process().as_ref()?.console_size()?;
    let characters = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    Some(Size { columns: characters(size.width()), rows: characters(size.height()) })
}

/// Whether a spec asks for a PID namespace that is nobody else's.
fn has_own_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    namespaces.into_iter().any(|of| of.typ() == LinuxNamespaceType::Pid && of.path().is_none())
}

/// A signal by its number.
fn signal(number: u32) -> Result<rustix::process::Signal, Error> {
    let raw = i32::try_from(number).map_err(|_| Error::Signal(number))?;
    rustix::process::Signal::from_named_raw(raw).ok_or(Error::Signal(number))
}

#[async_trait]
impl Execution for RunnerExec {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn exited(&self) -> Exit {
        let exit = self.process.exited().await;
        self.streams.drained().await;
        exit
    }

    fn kill(&self, number: u32) -> Result<(), Error> {
        Ok(self.process.kill(signal(number)?)?)
    }

    fn close_stdin(&self) {
        self.streams.close_stdin();
    }

    fn resize(&self, size: Size) -> Result<(), Error> {
        self.streams.resize(&self.id, size)
    }
}

#[async_trait]
impl Sandbox for RunnerSandbox {
    type Execution = RunnerExec;

    fn pid(&self) -> u32 {
        self.init.pid()
    }

    async fn start(&self) -> Result<(), Error> {
        self.init.start().await?;
        if let Err(error) = hooks::poststart(&self.leftovers.hooks, self.pid()).await {
            let _ = self.kill(nix::libc::SIGKILL.unsigned_abs(), true);
            return Err(error.into());
        }
        Ok(())
    }

    async fn exec(&self, request: &ExecRequest, unwanted: Unwanted) -> Result<RunnerExec, Error> {
        let (options, node) = (&self.options, Config::of_node()?);
        // With what is mounted in it, which the bundle's does not show. The dot, because a root must not be a link.
        let rootfs = PathBuf::from(format!("/proc/{}/root/.", self.pid()));
        let entrypoint = request.process.args().as_ref().and_then(|args| args.first());
        // The container's own module may be a layer of its image.
        let module = if entrypoint == Some(&self.entrypoint) { self.runners.image(&self.id) } else { Source::Rootfs };
        let plan = PlanRequest {
            rootfs: Some(&rootfs),
            module,
            otherwise: Some(self.program),
            ..plan_request(&self.id, &self.bundle, options, &node)
        };
        let mut plan = Plan::read_exec(&plan, request.process.clone())?;
        if (plan.program, self.program) == (Program::Native, Program::Wasm) {
            return Err(Error::NativeInWasm(plan.entrypoint));
        }
        let engine = self.runners.engine(&plan, options, &node)?;
        let size = size_of(&plan);
        let wanted = Wanted { paths: &request.stdio, owner: self.runners.owner(&request.id) };
        let (guest, opened) = Opened::new(wanted, request.terminal, &self.bundle, &mut plan).await?;
        let folders = Folders::of(self.pid()).map_err(Error::system("find the container's cgroup"))?;
        let cgroups = folders.paths().map(Path::to_owned).collect();
        let plan = ExecPlan { plan, init: self.pid().cast_signed(), init_started: self.init_started, cgroups };
        let guest = inherited(guest, self.bound.as_ref())?;
        let path = self.runners.runner(&engine);
        let executable = self.runners.executable(&engine)?;
        let runner = Runner::spawn_exec(&executable, &plan, guest)
            .map_err(|error| self.runners.explain(&engine, &path, error))?;
        let process = unless(unwanted, &runner, runner.joined()).await?;
        match opened.connect(wanted, size).await {
            Ok(streams) => Ok(RunnerExec { id: request.id.clone(), process, streams }),
            Err(error) => {
                // It runs, and nobody would know of it. Unreaped, it would keep the container's init.
                let _ = process.kill(rustix::process::Signal::KILL);
                process.exited().await;
                Err(error)
            }
        }
    }

    async fn exited(&self) -> Exit {
        let exit = self.init.exited().await;
        if !self.own_pids {
            let _ = self.kill(nix::libc::SIGKILL.unsigned_abs(), true);
        }
        self.streams.drained().await;
        exit
    }

    async fn out_of_memory(&self) {
        self.kills.killed().await;
    }

    async fn pause(&self) -> Result<(), Error> {
        self.freezer()?.freeze().await
    }

    async fn resume(&self) -> Result<(), Error> {
        self.freezer()?.thaw()
    }

    async fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        update(&self.folders, &self.cgroup, &self.id, resources)?;
        let limit = resources.memory().as_ref().and_then(LinuxMemory::limit).filter(|&limit| limit != 0);
        match (&self.bound, limit) {
            (Some(bound), Some(limit)) => bound.set(Guest::memory_within(limit)).map_err(Error::system(BOUND)),
            _ => Ok(()),
        }
    }

    fn kill(&self, number: u32, all: bool) -> Result<(), Error> {
        let signal = signal(number)?;
        if !all {
            return Ok(self.init.kill(signal)?);
        }
        for pid in self.pids()?.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            // One that ended meanwhile needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
        Ok(())
    }

    fn pids(&self) -> Result<Vec<u32>, Error> {
        Ok(self.folders.pids())
    }

    fn stats(&self) -> Result<Any, Error> {
        let figures = self.figures.collect(&self.cgroup.path, self.init.pid());
        figures.map_err(|why| cgroup::failed(&self.cgroup, why))
    }

    fn close_stdin(&self) {
        self.streams.close_stdin();
    }

    fn resize(&self, size: Size) -> Result<(), Error> {
        self.streams.resize(&self.id, size)
    }

    async fn remove(&self) -> Result<(), Error> {
        self.leftovers.remove().await?;
        self.runners.pod.forget(&self.id);
        Ok(())
    }
}
