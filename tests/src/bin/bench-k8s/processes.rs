//! What a bed's processes take, told apart by their names.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use lighter_tests::Bed;

/// How the names of the pods' processes begin: shims, runners, pauses and what runs in containers. /proc/PID/comm holds 15 bytes.
pub(crate) const PODS: &[&str] = &["containerd-shim", "lighter", "pause", "sleeper", "youki"];

/// The node's own. The shims' names begin like containerd's.
pub(crate) const DAEMONS: &[&str] = &["containerd\n", "kubelet\n"];

/// Proportional set size of all that have such a name, in KiB. Source: smaps_rollup in proc_pid_smaps(5).
pub(crate) fn memory(bed: &Bed, names: &[&str]) -> Result<u64> {
    let of_one = |process: PathBuf| {
        // It may have ended.
        let rollup = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    Ok(named(bed, names)?.into_iter().map(of_one).sum())
}

/// Time of processors that all of them have used. Source: utime and stime in proc_pid_stat(5).
pub(crate) fn cpu(bed: &Bed, names: &[&str]) -> Result<Duration> {
    let ticks = |process: PathBuf| {
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // The name, in brackets, may hold anything; these are the 12th and 13th field after it.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').collect::<Vec<_>>();
        let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        field(11) + field(12)
    };
    let ticks: u64 = named(bed, names)?.into_iter().map(ticks).sum();
    // A tick is a hundredth of a second on every architecture of ours: USER_HZ.
    Ok(Duration::from_millis(ticks * 10))
}

fn named(bed: &Bed, names: &[&str]) -> Result<Vec<PathBuf>> {
    let processes = fs::read_dir(bed.path("/proc")).context("list the bed's processes")?;
    let is_named = |process: &PathBuf| {
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        names.iter().any(|name| comm.starts_with(name))
    };
    Ok(processes.flatten().map(|process| process.path()).filter(is_named).collect())
}
