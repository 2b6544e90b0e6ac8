//! Work that nobody waits for: a process of its own, of the lowest priority, which outlives the container.
#![allow(unsafe_code)]

use std::{
    env,
    fs::File,
    io,
    path::Path,
    process::{Command, Stdio},
};

use crate::Error;

/// `ioprio_set`'s first argument for one process, and the idle class. Source: ioprio_set(2).
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;

/// Starts this runner as `compile --background` with the module on its standard input. Returns the process's id.
pub(crate) fn compile(module: File, cache: &Path, cache_bytes: u64) -> Result<u32, Error> {
    let path = env::current_exe().unwrap_or_default();
    let child = Command::new(&path)
        .args(["compile", "--background", "--cache-bytes", &cache_bytes.to_string(), "--cache"])
        .arg(cache)
        .env_clear()
        .current_dir("/")
        .stdin(module)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::RunProgram { path, source })?;
    Ok(child.id())
}

/// Leaves the caller's session and takes only what time and disk others leave. For this process and what it starts.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn step_back() -> io::Result<()> {
    // It fails for the leader of a group, which is as far away as it gets.
    let _ = nix::unistd::setsid();
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter lives through the call, which only reads it; 0 is the calling process.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: three integers; a kernel without I/O priorities answers with an error.
    if unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_CLASS_IDLE) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
