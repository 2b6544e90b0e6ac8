//! Where and of what the figures are.

use std::{fs, process::Command, thread};

use anyhow::{Context, Result};
use lighter_tests::Bed;
use nix::sys::utsname::uname;
use serde::Serialize;

/// The machine, at the start of the run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// In GiB.
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    /// Processes that ran or wanted to, in the last minute: 0 on a quiet machine.
    pub(crate) load: String,
    /// Of UTC.
    pub(crate) date: String,
}

/// What runs in a bed.
#[derive(Debug, Serialize)]
pub(crate) struct Versions {
    pub(crate) containerd: String,
    pub(crate) runc: String,
    /// Lighter's, with its engine's.
    pub(crate) lighter: String,
}

impl Machine {
    pub(crate) fn of_this() -> Result<Machine> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("read {path}"));
        // Some architectures don't tell a name.
        let processor = value(&read("/proc/cpuinfo")?, "model name").unwrap_or("unknown").to_owned();
        let kibibytes: u64 = value(&read("/proc/meminfo")?, "MemTotal")
            .and_then(|size| size.strip_suffix(" kB")?.parse().ok())
            .context("find MemTotal in /proc/meminfo")?;
        Ok(Machine {
            processor,
            cores: thread::available_parallelism().context("count cores")?.get(),
            memory: kibibytes.div_ceil(1 << 20),
            kernel: uname().context("uname")?.release().to_string_lossy().into_owned(),
            load: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
            date: today()?,
        })
    }
}

impl Versions {
    pub(crate) fn of(bed: &Bed) -> Result<Versions> {
        let first_line = |argv: &[&str]| -> Result<String> {
            let output = bed.cmd(argv).try_run()?;
            Ok(output.stdout.lines().next().unwrap_or_default().to_owned())
        };
        let containerd = first_line(&["containerd", "--version"])?;
        Ok(Versions {
            // `containerd github.com/containerd/containerd/v2 2.1.9 COMMIT`
            containerd: containerd.split(' ').nth(2).unwrap_or(&containerd).to_owned(),
            runc: first_line(&["runc", "--version"])?.trim_start_matches("runc version ").to_owned(),
            lighter: first_line(&["lighter-wasmtime", "--version"])?,
        })
    }
}

/// Of `name : value`.
fn value<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    let pair = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    pair.map(|(_, value)| value.trim())
}

fn today() -> Result<String> {
    let date = Command::new("date").args(["--utc", "--iso-8601"]).output().context("run date")?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}
