//! The servers that compete, each on a port of the bed's.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lighter_tests::{Bed, Image, PLATFORM, RUNTIME, free_port, guests};
use serde::Serialize;

/// A server that doesn't accept connections within this will not. `wasmtime serve` compiles first.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A server of a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Contender {
    /// Lighter with a handler for WASI 0.2, an instance a request.
    Fresh,
    /// The same with instances that are used again.
    Reused,
    /// Lighter with a handler for WASI 0.3, an instance a request.
    FreshAsync,
    /// The same with instances that are used again.
    ReusedAsync,
    /// hyper without WebAssembly.
    Plain,
    /// `wasmtime serve` with the same handler for WASI 0.2, an instance a request.
    WasmtimeServe,
    /// `wasmtime serve` with the same handler for WASI 0.3, an instance a request.
    WasmtimeServeAsync,
}

impl Contender {
    pub(super) fn all(with_wasmtime: bool) -> Vec<Contender> {
        let mut all =
            vec![Contender::Fresh, Contender::Reused, Contender::FreshAsync, Contender::ReusedAsync, Contender::Plain];
        if with_wasmtime {
            all.extend([Contender::WasmtimeServe, Contender::WasmtimeServeAsync]);
        }
        all
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Fresh => "Lighter, fresh instances",
            Contender::Reused => "Lighter, reuse",
            Contender::FreshAsync => "Lighter, WASI 0.3, fresh instances",
            Contender::ReusedAsync => "Lighter, WASI 0.3, reuse",
            Contender::Plain => "plain hyper, no WebAssembly",
            Contender::WasmtimeServe => "wasmtime serve",
            Contender::WasmtimeServeAsync => "wasmtime serve, WASI 0.3, no reuse",
        }
    }

    /// Who does the same by `wasmtime serve`.
    pub(super) fn peer(self) -> Option<Contender> {
        match self {
            Contender::Fresh | Contender::Reused => Some(Contender::WasmtimeServe),
            Contender::FreshAsync | Contender::ReusedAsync => Some(Contender::WasmtimeServeAsync),
            Contender::Plain | Contender::WasmtimeServe | Contender::WasmtimeServeAsync => None,
        }
    }
}

/// Version of the `wasmtime` on the PATH, if there is one.
pub(super) fn wasmtime() -> Result<Option<String>> {
    let on_path = |path| env::split_paths(&path).any(|folder: PathBuf| folder.join("wasmtime").is_file());
    if !env::var_os("PATH").is_some_and(on_path) {
        return Ok(None);
    }
    let output = Command::new("wasmtime").arg("--version").output().context("run wasmtime --version")?;
    ensure!(output.status.success(), "wasmtime --version: {}", output.status);
    Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// A server that runs.
pub(super) struct Server<'bed> {
    pub(super) contender: Contender,
    pub(super) address: SocketAddr,
    pub(super) metrics: Option<SocketAddr>,
    /// For as long as it runs.
    _running: Running<'bed>,
}

/// What is ended when it is dropped.
enum Running<'bed> {
    Container(&'bed Bed, String),
    /// Of the host's, in the bed's network.
    Process(Child),
}

impl<'bed> Server<'bed> {
    /// Starts it and waits until it accepts connections.
    pub(super) fn start(bed: &'bed Bed, contender: Contender) -> Result<Server<'bed>> {
        let address = free_address();
        let metrics = matches!(contender, Contender::Fresh | Contender::FreshAsync).then(free_address);
        let in_container = |handler, reuse| container(bed, handler, reuse, address, metrics);
        let as_process = |command| Server::wait(bed, address, spawn(bed, command)?);
        let running = match contender {
            Contender::Fresh => in_container("serve", "false"),
            Contender::Reused => in_container("serve", "true"),
            Contender::FreshAsync => in_container("serve-p3", "false"),
            Contender::ReusedAsync => in_container("serve-p3", "true"),
            Contender::Plain => {
                let mut own = Command::new(env::current_exe().context("find own executable")?);
                own.args(["serve", &address.to_string()]);
                as_process(own)
            }
            Contender::WasmtimeServe => as_process(wasmtime_serve(bed, "serve", &["-Scli"], address)?),
            Contender::WasmtimeServeAsync => {
                let flags = ["-Scli,p3", "-Wcomponent-model-async", "--max-instance-reuse-count=1"];
                as_process(wasmtime_serve(bed, "serve-p3", &flags, address)?)
            }
        };
        let running = running.with_context(|| format!("start {}", contender.name()))?;
        Ok(Server { contender, address, metrics, _running: running })
    }

    fn wait(bed: &Bed, address: SocketAddr, process: Child) -> Result<Running<'bed>> {
        let running = Running::Process(process);
        let deadline = Instant::now() + STARTS_WITHIN;
        while bed.in_network(|| TcpStream::connect(address)).is_err() {
            ensure!(Instant::now() < deadline, "it accepts no connections on {address}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // What has ended already is no concern of a bench; the bed goes anyway.
        match self {
            Running::Container(bed, id) => {
                let _ = bed.ctr(&["tasks", "rm", "--force", id]).try_run();
                let _ = bed.ctr(&["containers", "rm", id]).try_run();
            }
            Running::Process(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Lighter's, which has started when `ctr` returns.
fn container<'bed>(
    bed: &'bed Bed,
    handler: &str,
    reuse: &str,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
) -> Result<Running<'bed>> {
    let image = Image::layer(&format!("docker.io/library/{handler}:latest"), guests::handler(handler));
    bed.import(&image);
    let mut run = ["run", "--detach", "--null-io", "--net-host", "--runtime", RUNTIME, "--platform", PLATFORM].to_vec();
    let annotations = [format!("http.address={address}"), format!("http.reuse={reuse}")];
    let annotations = annotations.into_iter().chain(metrics.map(|metrics| format!("http.metrics={metrics}")));
    let annotations: Vec<String> = annotations.map(|annotation| format!("run.lighter.{annotation}")).collect();
    run.extend(annotations.iter().flat_map(|annotation| ["--annotation", annotation.as_str()]));
    let id = format!("http-{}", address.port());
    run.extend([image.name(), &id]);
    let started = bed.ctr(&run).try_run()?;
    ensure!(started.status == 0, "{started}");
    Ok(Running::Container(bed, id))
}

fn wasmtime_serve(bed: &Bed, handler: &str, flags: &[&str], address: SocketAddr) -> Result<Command> {
    let component = bed.path(format!("/tmp/{handler}.wasm"));
    fs::write(&component, guests::handler(handler)).with_context(|| format!("write {}", component.display()))?;
    let mut command = Command::new("wasmtime");
    command.arg("serve").args(flags).args(["--addr", &address.to_string()]).arg(component);
    Ok(command)
}

fn spawn(bed: &Bed, mut command: Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    bed.in_network(|| command.spawn()).with_context(|| format!("run {}", command.get_program().display()))
}
