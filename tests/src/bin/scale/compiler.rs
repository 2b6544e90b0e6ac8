//! What compilations take: `lighter-compile`, as the runner starts it, on guests of the tests.

use std::{
    env,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use lighter_tests::guests;
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// Each compilation is measured so often; the least counts, which others disturbed least.
const ROUNDS: usize = 2;

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
    let modules = [
        ("a hello in Rust", guests::p1("hello")),
        ("a hello in Go", guests::go("greet")),
        ("a hello in JavaScript, a component", guests::javascript("greet")),
        ("Ruby with its library", fs::read(guests::big()).context("read the large module")?),
    ];
    let mut compilations = Vec::new();
    for (name, bytes) in modules {
        let path = folder.path().join("guest.wasm");
        fs::write(&path, &bytes).with_context(|| format!("write {}", path.display()))?;
        compilations.push(Compilation {
            module: name.to_owned(),
            bytes: bytes.len() as u64,
            baseline: least(compiler, &path, true)?,
            optimised: least(compiler, &path, false)?,
        });
    }
    Ok(compilations)
}

fn least(compiler: &Path, module: &Path, baseline: bool) -> Result<Effort> {
    let own = env::current_exe().context("find own executable")?;
    let mut efforts: Vec<Effort> = Vec::new();
    for _ in 0..ROUNDS {
        // The kernel tells the peak of all children only: so each is the only child of a process.
        let output = Command::new(&own)
            .arg("compile")
            .args(baseline.then_some("--baseline"))
            .args([compiler, module])
            .stderr(Stdio::inherit())
            .output()
            .context("run this program")?;
        ensure!(output.status.success(), "compile {}: {}", module.display(), output.status);
        efforts.push(serde_json::from_slice(&output.stdout).context("decode what was measured")?);
    }
    efforts.into_iter().min_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds)).context("no round")
}

/// The other end: compiles once, and prints what that took.
pub(crate) fn once(compiler: &Path, module: &Path, baseline: bool) -> Result<()> {
    let input = File::open(module).with_context(|| format!("open {}", module.display()))?;
    let output = tempfile::tempfile().context("make a file")?;
    let mut child = Command::new(compiler)
        .args(baseline.then_some("--baseline"))
        .env_clear()
        .stdin(input)
        .stdout(output.try_clone().context("share a file")?)
        .spawn()
        .with_context(|| format!("run {}", compiler.display()))?;
    let pid = Pid::from_raw(child.id().try_into().context("pid")?);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).context("wait for the compiler")?;
    let serial_seconds = main_thread(pid)?;
    let status = child.wait().context("wait for the compiler")?;
    ensure!(status.success(), "{} ended with {status}", compiler.display());
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let cpu = [usage.user_time(), usage.system_time()];
    let effort = Effort {
        cpu_seconds: cpu.iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum(),
        serial_seconds,
        mebibytes: usage.max_rss() as f64 / 1024.0,
        code_bytes: output.metadata().context("look at the code")?.len(),
    };
    println!("{}", serde_json::to_string(&effort).context("encode what was measured")?);
    Ok(())
}

/// CPU seconds of a process's main thread; of one that has ended, until somebody has waited for it. Source: the kernel's
/// `Documentation/scheduler/sched-stats.rst`, `/proc/PID/schedstat`.
fn main_thread(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let nanoseconds: Option<u64> = text.split(' ').next().and_then(|number| number.parse().ok());
    Ok(nanoseconds.with_context(|| format!("no number in {path}"))? as f64 / 1e9)
}
