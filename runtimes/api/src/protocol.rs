//! What passes between the daemon and a runner: descriptors with fixed numbers, and status lines.

use std::{fs, io, os::fd::RawFd, path::PathBuf};

use lighter_oci::Plan;
use serde::{Deserialize, Serialize};

/// The stream that [`Status`] lines are written to. Standard input holds the plan as JSON.
pub const FD_STATUS: RawFd = 3;
/// The guest's standard input.
pub const FD_STDIN: RawFd = 4;
/// The guest's standard output.
pub const FD_STDOUT: RawFd = 5;
/// The guest's standard error.
pub const FD_STDERR: RawFd = 6;
/// The page of the guest's [`MemoryBound`](crate::MemoryBound), open for reading; none where it never changes.
pub const FD_BOUND: RawFd = 7;

/// What `exec` reads in place of a plan: a process that joins a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecPlan {
    /// As for a container of its own, of which only the process is made. Its root filesystem is the container's, with what
    /// is mounted there.
    pub plan: Plan,
    /// The container's init, in the daemon's PID namespace.
    pub init: i32,
    /// When it was started ([`started_at`]): its number may be another process's by now.
    pub init_started: u64,
    /// The folders of the container's cgroup, one a hierarchy.
    pub cgroups: Vec<PathBuf>,
}

/// When a process was started, in clock ticks since the machine was. Source: proc_pid_stat(5), field 22.
///
/// # Errors
/// There is no such process.
pub fn started_at(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold any byte.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
    ticks.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a process's stat is of another form"))
}

/// One line of JSON: first `Created` or `Failed` from the creating process, then, after the start signal, from the
/// container's init:
///
/// ```text
/// Started                     the guest runs in the runner's process
/// Executing, end of file      it runs in its own: the exec that closed the stream has replaced the runner's
/// Executing, Failed           the kernel refused the exec
/// Failed                      the guest never ran
/// ```
///
/// End of file in any other place means the process died.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The sandbox stands and waits for the start signal.
    Created {
        /// The init's process id, in the daemon's PID namespace.
        pid: i32,
        /// What there is to tell of how the guest's code came about, for the log; a line each.
        notes: Vec<String>,
        /// The process that makes better code in the background. It becomes a child of the daemon's.
        background: Option<u32>,
    },
    /// The guest's first instruction is next.
    Started,
    /// A native program is about to replace this process.
    Executing,
    /// It did not work out, and this is why, in one line.
    Failed {
        /// For the person who reads it in `docker run` or `kubectl describe pod`.
        message: String,
    },
}
