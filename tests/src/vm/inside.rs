//! The machine's side: does the job, says what came of it, and turns the machine off.

use std::{
    convert::Infallible,
    fs::{self, DirEntry, File, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result};
use nix::sys::reboot::{RebootMode, reboot};

use super::{
    MARK,
    job::{self, Job, Step},
};
use crate::enter::exit_code;

/// Source: the kernel's `drivers/char/virtio_console.c`.
const PORTS: &str = "/sys/class/virtio-ports";

/// Does the job of the machine that this process runs in, and ends the machine.
///
/// # Errors
/// This is no such machine.
pub fn inside() -> Result<Infallible> {
    let job = fs::read(job::PATH).with_context(|| format!("read {}: this is no machine of the testbed", job::PATH))?;
    let job: Job = serde_json::from_slice(&job).context("read the job")?;
    fs::write(MARK, "").with_context(|| format!("write {MARK}"))?;
    let done = port(job::OUTPUT).and_then(|output| all(&job, output));
    // Without a status, the console says why.
    match done.and_then(|code| Ok(writeln!(port(job::STATUS)?, "{code}")?)) {
        Ok(()) => {}
        Err(error) => eprintln!("{error:#}"),
    }
    // At once: nothing here is kept.
    reboot(RebootMode::RB_POWER_OFF).context("turn the machine off")
}

/// 0, or the exit code of the first that failed.
fn all(job: &Job, mut output: File) -> Result<i32> {
    let mut failed = None;
    let booted = fs::read_to_string("/proc/uptime").unwrap_or_default();
    writeln!(output, "vm: started in {} s", booted.split('.').next().unwrap_or_default())
        .context("write to the port")?;
    for step in &job.steps {
        let begun = Instant::now();
        writeln!(output, "vm: {}", step.name).context("write to the port")?;
        let code = run(job, step, &output).with_context(|| format!("run {:?}", step.command))?;
        writeln!(output, "vm: {} ended with {code} after {} s", step.name, begun.elapsed().as_secs())
            .context("write to the port")?;
        failed = failed.or((code != 0).then_some(code));
    }
    Ok(failed.unwrap_or_default())
}

fn run(job: &Job, step: &Step, output: &File) -> Result<i32> {
    let (program, arguments) = step.command.split_first().context("a step without a command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in job.environment.iter().chain(&step.environment) {
        command.env(name, value);
    }
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    Ok(exit_code(command.status()?))
}

/// The kernel names its device by numbers; nobody else does, for no udev runs.
fn port(name: &str) -> Result<File> {
    let is_this =
        |port: &DirEntry| fs::read_to_string(port.path().join("name")).is_ok_and(|of_port| of_port.trim() == name);
    let ports = fs::read_dir(PORTS).with_context(|| format!("list {PORTS}"))?.flatten();
    let port = ports.into_iter().find(is_this).with_context(|| format!("the machine has no port {name}"))?;
    let path = Path::new("/dev").join(port.file_name());
    OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))
}
