//! Cgroups that systemd manages, as Docker asks for where it runs: what systemd believes, and what the kernel holds to.

use std::process::Command;

use lighter_tests::{Bed, Suite, vm};

use super::{
    figures::limit,
    kind::{Everyday, Kind, on_every_kind},
};

on_every_kind! { limits_are_told_and_kept }

/// What the machine's systemd answers.
#[track_caller]
fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().expect("run systemctl");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn limits_are_told_and_kept(suite: Suite, kind: Kind) {
    if !vm::has_systemds_cgroups() {
        eprintln!("skipped: no systemd manages this bed's cgroups (`make test-v2` has one)");
        return;
    }
    let bed = Bed::get(suite);
    let flags = ["--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "--pids-limit", "60"];
    let container = kind.ready(bed, "scope", &flags);
    let scope = format!("docker-{}.scope", container.inspect("{{.Id}}"));
    let pid = container.inspect("{{.State.Pid}}");
    let cgroup = std::fs::read_to_string(bed.path(format!("/proc/{pid}/cgroup"))).expect("cgroup of the container");
    assert_eq!(cgroup.trim(), format!("0::/system.slice/{scope}"));
    assert_limits(&container, &scope, &pid, ["67108864", "500ms", "60"]);
    let flags = ["--memory", "128m", "--memory-swap", "128m", "--cpus", "0.25", "--pids-limit", "70"];
    container.docker("update", &flags).ok();
    assert_limits(&container, &scope, &pid, ["134217728", "250ms", "70"]);
    // Then it writes what it believes.
    systemctl(&["daemon-reload"]);
    assert_limits(&container, &scope, &pid, ["134217728", "250ms", "70"]);
    container.docker("stop", &[]).ok();
    assert_eq!(systemctl(&["is-active", &scope]), "inactive");
    container.docker("start", &[]).ok();
    assert_eq!(systemctl(&["is-active", &scope]), "active");
}

/// Of memory, CPU time in a second, and processes.
#[track_caller]
fn assert_limits(container: &Everyday<'_>, scope: &str, pid: &str, expected: [&str; 3]) {
    let told = ["MemoryMax", "CPUQuotaPerSecUSec", "TasksMax"];
    let told = told.map(|property| systemctl(&["show", "--value", "--property", property, scope]));
    assert_eq!(told, expected);
    let held = |file: &str| limit(container.bed, pid, file, [file, file]);
    let percent = held("cpu.max").split_once(' ').map(|(quota, period)| {
        let [quota, period] = [quota, period].map(|number| number.parse::<u64>().unwrap_or_default());
        format!("{}ms", quota * 1000 / period.max(1))
    });
    assert_eq!([held("memory.max"), percent.unwrap_or_default(), held("pids.max")], expected);
}
