//! What compilations take: `lighter-compile`, as the runner starts it, on guests of the tests.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lighter_tests::guests;
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// Each compilation is measured so often; the least counts, which others disturbed least.
const ROUNDS: usize = 2;
/// Between two looks at a compiler's memory.
const LOOK: Duration = Duration::from_millis(1);

/// Of one module, in each of its two tiers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Compilation {
    pub(crate) module: String,
    pub(crate) bytes: u64,
    pub(crate) baseline: Effort,
    pub(crate) optimised: Effort,
}

/// What a compiler's process took and made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// CPU time over all threads.
    pub(crate) cpu_seconds: f64,
    /// Of it, the main thread's. It sleeps while others work side by side: so this is what more cores don't help.
    pub(crate) serial_seconds: f64,
    /// At its peak, resident.
    pub(crate) mebibytes: f64,
    pub(crate) code_bytes: u64,
}

/// Measures all of them.
pub(crate) fn measure(compiler: &Path) -> Result<Vec<Compilation>> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let path = folder.path().join("guest.wasm");
    let least = |tier: Option<&str>| -> Result<Effort> {
        let efforts: Result<Vec<_>> = (0..ROUNDS).map(|_| compile(compiler, &path, tier)).collect();
        efforts?.into_iter().min_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds)).context("no round")
    };
    let modules = [
        ("a hello in Rust", guests::p1("hello")),
        ("a hello in Go", guests::go("greet")),
        ("a hello in JavaScript, a component", guests::javascript("greet")),
        ("Ruby with its library", fs::read(guests::big()).context("read the large module")?),
    ];
    let compilations = modules.into_iter().map(|(name, module)| {
        fs::write(&path, &module).with_context(|| format!("write {}", path.display()))?;
        let (baseline, optimised) = (least(Some("--baseline"))?, least(None)?);
        Ok(Compilation { module: name.to_owned(), bytes: module.len() as u64, baseline, optimised })
    });
    compilations.collect()
}

fn compile(compiler: &Path, module: &Path, tier: Option<&str>) -> Result<Effort> {
    let input = File::open(module).with_context(|| format!("open {}", module.display()))?;
    let output = tempfile::tempfile().context("make a file")?;
    let before = children()?;
    let mut child = Command::new(compiler)
        .args(tier)
        .env_clear()
        .stdin(input)
        .stdout(output.try_clone().context("share a file")?)
        .spawn()
        .with_context(|| format!("run {}", compiler.display()))?;
    let pid = Pid::from_raw(child.id().try_into().context("pid")?);
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    let mut kibibytes: f64 = 0.0;
    while waitid(Id::Pid(pid), ended).context("wait for the compiler")? == WaitStatus::StillAlive {
        // Of a process that has ended since, there is no such line.
        let status = read(pid, "status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        kibibytes = peak.map_or(Ok(kibibytes), str::parse).context("VmHWM")?;
        thread::sleep(LOOK);
    }
    // Nanoseconds of the main thread, which are there until somebody has waited for the process. Source: the kernel's
    // Documentation/scheduler/sched-stats.rst.
    let serial = read(pid, "schedstat")?;
    let serial: f64 = serial.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
    let status = child.wait().context("wait for the compiler")?;
    ensure!(status.success(), "{} ended with {status}", compiler.display());
    Ok(Effort {
        cpu_seconds: children()? - before,
        serial_seconds: serial / 1e9,
        mebibytes: kibibytes / 1024.0,
        code_bytes: output.metadata().context("look at the code")?.len(),
    })
}

/// CPU seconds of all children that have ended.
fn children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    Ok([usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum())
}

fn read(pid: Pid, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).with_context(|| format!("read {path}"))
}
