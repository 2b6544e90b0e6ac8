//! Running a command inside a bed.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::cgroup;

const ENVIRONMENT: &[(&str, &str)] =
    &[("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root"), ("LANG", "C.UTF-8")];

/// Runs `command` in all namespaces and cgroups of the bed whose pid 1 is the host's `init`, with
/// nothing of our environment, and returns its exit code (128 + n after signal n).
///
/// The calling process ends up in the bed too (but for its pid), hence must have nothing else to do,
/// and one thread.
///
/// # Errors
/// When there is no such bed or no such command.
pub fn enter(init: u32, command: &[OsString]) -> Result<i32> {
    cgroup::join_those_of(init)?;
    // The mount namespace comes last: /proc of the host is gone after it.
    let namespaces = ["cgroup", "ipc", "uts", "net", "pid", "mnt"].map(|name| {
        File::open(format!("/proc/{init}/ns/{name}")).with_context(|| format!("open the {name} namespace"))
    });
    for namespace in namespaces {
        setns(namespace?, CloneFlags::empty()).context("enter a namespace of the bed")?;
    }
    let (program, arguments) = command.split_first().context("no command given")?;
    let terminal = std::env::var_os("TERM").map(|terminal| ("TERM", terminal));
    let status = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT.iter().copied())
        .envs(terminal)
        .current_dir("/")
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(exit_code(status))
}

/// As shells tell it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}
