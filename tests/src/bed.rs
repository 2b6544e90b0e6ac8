//! A bed: one suite's daemons at work, with the binaries under test installed.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    ops::Deref,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use containerd_client::tonic::transport::Channel;

use crate::{
    Cmd, Image, Output, Registry, Suite,
    daemons::{self, Daemon},
    leftovers,
    logs::Logs,
    rootfs, shared, staging, vm,
};

/// How long traces of what was removed may take to go.
const CLEAN_WITHIN: Duration = Duration::from_secs(5);

/// Real containerd and Docker of one suite in namespaces of their own.
pub struct Bed {
    suite: Suite,
    init: u32,
    testbed: PathBuf,
    supervisor: Mutex<Option<Child>>,
    docker: OnceLock<()>,
    registries: [OnceLock<()>; Registry::ALL.len()],
}

impl Bed {
    /// The bed that the tests of one binary share, made on first use and removed when the process ends.
    #[track_caller]
    pub fn get(suite: Suite) -> &'static Bed {
        let bed = shared::get_or_start(suite).unwrap_or_else(|error| panic!("no bed of {suite}: {error}"));
        bed.logs().show_on_panic();
        bed
    }

    /// A bed for one test only, which may break it, and can tell what is left.
    #[track_caller]
    pub fn fresh(suite: Suite) -> OwnBed {
        let bed = Bed::start(suite).unwrap_or_else(|error| panic!("no bed of {suite}: {error:#}"));
        bed.logs().show_on_panic();
        OwnBed(bed)
    }

    /// Makes a bed with containerd running.
    ///
    /// # Errors
    /// When a part can't be made, with what to do about it.
    pub fn start(suite: Suite) -> Result<Bed> {
        Bed::start_with(suite, None)
    }

    /// As [`Bed::start`], with a folder laid over the root filesystem.
    pub(crate) fn start_with(suite: Suite, layer: Option<&Path>) -> Result<Bed> {
        let rootfs = rootfs::get(suite)?;
        let testbed = testbed_executable()?;
        let usr_local = staging::usr_local(&testbed)?;
        let mut hold = Command::new(&testbed);
        hold.arg("hold").arg("--hostname").arg(suite.name());
        hold.arg("--rootfs").arg(&rootfs).arg("--usr-local").arg(&usr_local);
        if let Some(layer) = layer {
            hold.arg("--layer").arg(layer);
        }
        // In a process group of its own: Ctrl-C must not end it before it has cleaned up.
        let supervisor = hold.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        let mut supervisor = supervisor.context("start the bed's supervisor")?;
        let mut line = String::new();
        let stdout = supervisor.stdout.take().context("take the supervisor's stdout")?;
        BufReader::new(stdout).read_line(&mut line).context("hear from the bed's supervisor")?;
        let init = line.trim().parse().map_err(|_| anyhow!("the bed could not be made; its supervisor said why"))?;

        let supervisor = Mutex::new(Some(supervisor));
        let bed = Bed { suite, init, testbed, supervisor, docker: OnceLock::new(), registries: Default::default() };
        if let Err(error) = bed.configure().and_then(|()| Daemon::Containerd.start(&bed)) {
            bed.remove();
            return Err(error);
        }
        Ok(bed)
    }

    /// Which suite's daemons run here.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The host's pid of the bed's pid 1.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A file of the bed as the host sees it; also good for connecting to a socket.
    ///
    /// Absolute symlinks on the way would lead out of the bed: the host resolves them.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        Path::new("/proc").join(self.init.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A command in the bed.
    pub fn cmd(&self, argv: &[impl AsRef<OsStr>]) -> Cmd {
        let argv: Vec<OsString> = argv.iter().map(|word| word.as_ref().into()).collect();
        Cmd::new(self.testbed.as_os_str(), self.init, &argv)
    }

    /// A shell script in the bed, ended by its first error.
    pub fn sh(&self, script: &str) -> Cmd {
        self.cmd(&["sh", "-ec", script])
    }

    /// `ctr` with containerd's namespace `default`.
    pub fn ctr(&self, arguments: &[impl AsRef<OsStr>]) -> Cmd {
        self.program("ctr", arguments)
    }

    /// `docker`, whose daemon starts at the first call.
    #[track_caller]
    pub fn docker(&self, arguments: &[impl AsRef<OsStr>]) -> Cmd {
        self.start_docker();
        self.program("docker", arguments)
    }

    /// Starts Docker's daemon unless it runs already.
    #[track_caller]
    pub fn start_docker(&self) {
        self.docker.get_or_init(|| {
            Daemon::Docker.start(self).unwrap_or_else(|error| panic!("no docker on {}: {error:#}", self.suite));
        });
    }

    fn program(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> Cmd {
        let mut argv = vec![OsStr::new(program)];
        argv.extend(arguments.iter().map(AsRef::as_ref));
        self.cmd(&argv)
    }

    /// The address of a registry in the bed, started at the first call; plain HTTP.
    #[track_caller]
    pub fn registry(&self) -> &'static str {
        self.start_registry(Registry::Plain)
    }

    /// The address of this registry, started at the first call.
    #[track_caller]
    pub fn start_registry(&self, registry: Registry) -> &'static str {
        self.registries[registry as usize].get_or_init(|| {
            let started = registry.configure(self).and_then(|()| Daemon::Registry(registry).start(self));
            started.unwrap_or_else(|error| panic!("no registry on {}: {error:#}", self.suite));
        });
        registry.address()
    }

    /// Puts an image into containerd's namespace `default`.
    #[track_caller]
    pub fn import(&self, image: &Image) {
        // Of two that import one name at once, one may be told that it is there.
        static ONE_BY_ONE: Mutex<()> = Mutex::new(());
        let _importing = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
        self.ctr(&["images", "import", "--all-platforms", "-"]).stdin(image.to_tar()).run().ok();
    }

    /// Puts an image into Docker, which is to keep its images in containerd.
    #[track_caller]
    pub fn docker_load(&self, image: &Image) -> Output {
        self.docker(&["load"]).stdin(image.to_tar()).run().ok()
    }

    /// A connection to containerd's gRPC services.
    ///
    /// # Errors
    /// When containerd doesn't run.
    pub async fn containerd_channel(&self) -> Result<Channel> {
        containerd_client::connect(self.path(daemons::CONTAINERD_SOCKET)).await.context("connect to containerd")
    }

    /// Kills containerd and waits until it is gone.
    #[track_caller]
    pub fn kill_containerd(&self) {
        self.sh("pid=$(cat /run/bed/containerd.pid); kill -9 $pid; while [ -e /proc/$pid ]; do sleep 0.01; done")
            .run()
            .ok();
    }

    /// Starts containerd again and waits until it answers.
    #[track_caller]
    pub fn start_containerd(&self) {
        Daemon::Containerd.start(self).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// What remains of tasks: processes, mounts, cgroups, sockets, files. One line each.
    #[track_caller]
    pub fn leftovers(&self) -> Vec<String> {
        leftovers::of(self).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Panics unless nothing remains of any task within 5 s.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.assert_gone("");
    }

    /// Panics unless nothing that names `id` remains within 5 s.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        let deadline = Instant::now() + vm::patience(CLEAN_WITHIN);
        loop {
            let mut left = self.leftovers();
            left.retain(|line| line.contains(id));
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind on {}:\n  {}", self.suite, left.join("\n  "));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the daemons logged last.
    pub fn logs(&self) -> Logs {
        Logs::new(self.suite, self.path(daemons::LOGS))
    }

    fn configure(&self) -> Result<()> {
        let files = daemons::configuration(self.suite);
        files.into_iter().try_for_each(|(path, text)| self.write(path, &text))
    }

    /// Writes a file of the bed, and makes its folder.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        let folder = path.parent().context("file without a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Ends all in the bed and waits until no trace is left on the host.
    pub(crate) fn remove(&self) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut supervisor) = supervisor {
            // Also closes the pipe that it waits at.
            match supervisor.wait() {
                Ok(status) if status.success() => {}
                ended => eprintln!("testbed: the supervisor of {} ended with {ended:?}", self.suite),
            }
        }
    }
}

/// A bed that goes when dropped.
pub struct OwnBed(Bed);

impl Deref for OwnBed {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.0
    }
}

impl Drop for OwnBed {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// The program `testbed`: this one, or built beside the test that runs (in `deps`).
fn testbed_executable() -> Result<PathBuf> {
    let own = env::current_exe().context("find own executable")?;
    let found = own.ancestors().take(3).map(|path| path.with_file_name("testbed")).find(|path| path.is_file());
    found.with_context(|| format!("no program `testbed` beside {}: build it with cargo", own.display()))
}
