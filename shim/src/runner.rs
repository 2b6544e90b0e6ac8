//! Containers that a runner process builds: the real [`Launcher`].
//!
//! Turns the bundle into a plan, has `lighter-ENGINE create` build it, and removes what it leaves.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use containerd_shim::Flags;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use lighter_launch::{Folders, Init, Runner, anticipate_move, reap_strangers};
use lighter_oci::{By, Cache, Cgroup, Choice, Config, ContainerImage, Plan, PlanRequest, Program, Source, listed};

use crate::{
    cgroup::{self, Cpuset, Known},
    error::Error,
    rootfs,
    sandbox::{CreateRequest, Exit, Launcher, Sandbox},
    stdio::{self, HeldStdio},
};

/// The engines that run WebAssembly, of which each is a program `lighter-NAME` beside the shim. The first is the default.
const ENGINES: &[&str] = &["wasmtime", "wasmedge", "wamr"];
/// Runs native programs, and nothing else.
const NATIVE: &str = Program::NATIVE;

/// Launches runners of the engines that are installed beside the shim.
#[derive(Debug)]
pub(crate) struct Runners {
    /// The folder of the shim's executable.
    folder: PathBuf,
    /// The engine that the runtime's name asks for, such as `wasmtime` for `containerd-shim-wasmtime-v1`.
    by_name: Option<&'static str>,
    /// containerd's gRPC socket.
    address: PathBuf,
    /// containerd's namespace.
    namespace: String,
}

impl Runners {
    /// `argv0` is the name under which containerd started the shim; `flags` say where containerd is.
    pub(crate) fn new(argv0: &str, flags: &Flags) -> io::Result<Self> {
        let executable = env::current_exe()?;
        let folder = executable.parent().map(Path::to_owned).unwrap_or_default();
        let name = Path::new(argv0).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let runtime = name.strip_prefix("containerd-shim-").and_then(|n| n.rsplit_once("-v")).map(|(name, _)| name);
        let by_name = ENGINES.iter().copied().find(|engine| Some(*engine) == runtime);
        Ok(Self { folder, by_name, address: PathBuf::from(&flags.address), namespace: flags.namespace.clone() })
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

    fn runner(&self, engine: &str) -> PathBuf {
        self.folder.join(format!("lighter-{engine}"))
    }
}

/// A container with its init.
#[derive(Debug)]
pub(crate) struct RunnerSandbox {
    id: String,
    init: Init,
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
        let (options, node) = (&request.options, Config::of_node()?);
        let mut plan = Plan::read(&PlanRequest {
            id: &request.id,
            bundle: &request.bundle,
            rootfs,
            module: Source::Image(ContainerImage {
                address: self.address.clone(),
                namespace: self.namespace.clone(),
                container: request.id.clone(),
            }),
            systemd_cgroup: options.systemd_cgroup.or(node.systemd_cgroup).unwrap_or(false),
            cache: Path::new(Cache::NODE),
            cache_bytes: options.cache_size.or(node.cache_size).unwrap_or(Cache::NODE_BYTES),
        })?;
        let engine = self.engine(&plan, options, &node)?;
        let cpuset = Cpuset::take(&mut plan);
        leftovers.cgroup = Some(Known::Named(plan.cgroup.clone()));
        let (guest, held) = stdio::open(&request.stdio)?;
        let path = self.runner(&engine);
        let runner = Runner::spawn(&path, &plan, guest).map_err(|error| self.explain(&engine, &path, error))?;
        let init = runner.created().await?;
        let folders = Folders::of(init.pid()).map_err(Error::system("find the container's cgroup"))?;
        leftovers.cgroup = Some(Known::Folders(folders.clone(), plan.cgroup.clone()));
        cpuset.bind(&folders).map_err(Error::system("bind the container to its CPUs"))?;
        Ok(RunnerSandbox {
            id: request.id.clone(),
            init,
            held,
            cgroup: plan.cgroup,
            folders,
            leftovers: leftovers.clone(),
        })
    }
}

#[async_trait]
impl Sandbox for RunnerSandbox {
    fn pid(&self) -> u32 {
        self.init.pid()
    }

    async fn start(&self) -> Result<(), Error> {
        Ok(self.init.start().await?)
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
        Ok(self.init.kill(signal)?)
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
