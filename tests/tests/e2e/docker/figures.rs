//! What Docker tells of a container, and the limits that can be changed while it runs.

use std::time::{Duration, Instant};

use lighter_tests::{Bed, Suite, vm};

use super::{
    kind::{Kind, Program, on_every_kind},
    life::wait_until,
};

on_every_kind! {
    stats,
    stats_of_cpu,
    top,
    update,
    events,
    out_of_memory,
}

/// In bytes, of Docker's `1.5MiB`.
#[track_caller]
fn bytes(text: &str) -> f64 {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "KiB" => 1024.0,
        "MB" => 1e6,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        other => panic!("unknown unit {other:?} in {text:?}"),
    };
    number.parse::<f64>().unwrap_or_else(|_| panic!("no number in {text:?}")) * unit
}

fn stats(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "stats", &["--memory", "64m", "--pids-limit", "30"]);
    let stats = container.docker("stats", &["--no-stream", "--format", "{{.MemUsage}}|{{.MemPerc}}|{{.PIDs}}"]).ok();
    let fields: Vec<&str> = stats.stdout.trim().split('|').collect();
    let (used, limit) = fields[0].split_once(" / ").unwrap_or_else(|| panic!("{stats}"));
    assert_eq!(limit, "64MiB", "{stats}");
    // More than nothing, less than an engine that keeps its compiler.
    assert!((50e3..32e6).contains(&bytes(used)), "{stats}");
    let percent: f64 = fields[1].trim_end_matches('%').parse().expect("a number");
    assert!((percent - bytes(used) / bytes(limit) * 100.0).abs() < 1.0, "{stats}");
    let pids: u32 = fields[2].parse().expect("a number");
    assert!((1..30).contains(&pids), "{stats}");
}

/// One that computes takes a CPU, one that waits takes none.
fn stats_of_cpu(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let busy = kind.detach(bed, "stats-busy", &[], Program::Busy);
    let idle = kind.ready(bed, "stats-idle", &[]);
    busy.wait_for_log("ready");
    let stats = ["stats", "--no-stream", "--format", "{{.CPUPerc}}", &busy.name, &idle.name];
    let output = bed.docker(&stats).run().ok();
    let percents: Vec<f64> =
        output.stdout.lines().map(|line| line.trim_end_matches('%').parse().expect("a number")).collect();
    // Other tests run beside this one.
    assert!(percents[0] > 20.0 && percents[0] < 130.0, "{output}");
    assert!(percents[1] < 15.0 && percents[1] < percents[0], "{output}");
}

fn top(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "top", &[]);
    let pid = container.inspect("{{.State.Pid}}");
    let pids = |words: &[&str]| {
        let top = bed.docker(&[&["top", &container.name], words].concat()).run().ok().stdout;
        let column = top.lines().next().and_then(|titles| titles.split_whitespace().position(|title| title == "PID"));
        let column = column.unwrap_or_else(|| panic!("no PID in {top}"));
        let pid = |line: &str| line.split_whitespace().nth(column).map(str::to_owned);
        top.lines().skip(1).filter_map(pid).collect::<Vec<_>>()
    };
    for words in [&[][..], &["-eo", "pid,comm"]] {
        let listed = pids(words);
        assert!(listed.contains(&pid), "{pid} is not in {listed:?}");
    }
    let before = pids(&[]).len();
    let staying = container.exec(&[], Program::Stay).spawn();
    staying.wait_for("ready\n");
    // A shell may start a `sleep` meanwhile.
    assert!(pids(&[]).len() > before - usize::from(kind != Kind::Guest), "{:?}", pids(&[]));
}

/// What the kernel holds a container to, whichever version of cgroups it has: the file of v1 or of v2.
#[track_caller]
pub(crate) fn limit(bed: &Bed, pid: &str, controller: &str, [v1, v2]: [&str; 2]) -> String {
    let script = format!(
        "own=$(sed -nE 's/^[0-9]+:([^:]*,)?{controller}(,[^:]*)?:(.*)/\\3/p' /proc/{pid}/cgroup)
         if [ -n \"$own\" ]; then cat /sys/fs/cgroup/{controller}$own/{v1}
         else cat /sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)/{v2}; fi"
    );
    bed.sh(&script).run().ok().stdout.trim().to_owned()
}

fn update(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "updated", &["--memory", "64m", "--memory-swap", "64m", "--cpus", "1"]);
    let pid = container.inspect("{{.State.Pid}}");
    let memory = || limit(bed, &pid, "memory", ["memory.limit_in_bytes", "memory.max"]);
    let cpu = || limit(bed, &pid, "cpu", ["cpu.cfs_quota_us", "cpu.max"]);
    assert_eq!((memory().as_str(), cpu().split(' ').next()), ("67108864", Some("100000")));
    let flags = ["--memory", "128m", "--memory-swap", "128m", "--cpus", "0.5", "--pids-limit", "20"];
    container.docker("update", &flags).ok();
    assert_eq!((memory().as_str(), cpu().split(' ').next()), ("134217728", Some("50000")));
    assert_eq!(limit(bed, &pid, "pids", ["pids.max", "pids.max"]), "20");
    assert_eq!(container.inspect("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"), "134217728 500000000");
    let stats = container.docker("stats", &["--no-stream", "--format", "{{.MemUsage}}"]).ok();
    assert!(stats.stdout.trim().ends_with("/ 128MiB"), "{stats}");
    assert_eq!(container.inspect("{{.State.Pid}}"), pid);
    container.docker("stop", &[]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "143");
}

/// The actions of a container so far, as `docker events` tells them.
#[track_caller]
fn actions(bed: &Bed, container: &str, since: &str) -> Vec<String> {
    let filter = format!("container={container}");
    // `--until` the time that it is by then: it ends after what was.
    let events =
        format!("docker events --since {since} --until $(date +%s.%N) --filter {filter} --format '{{{{.Action}}}}'");
    bed.sh(&events).run().ok().stdout.lines().map(str::to_owned).collect()
}

fn now(bed: &Bed) -> String {
    bed.cmd(&["date", "+%s.%N"]).run().ok().stdout.trim().to_owned()
}

fn events(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    bed.start_docker();
    let since = now(bed);
    let container = kind.ready(bed, "events", &[]);
    let id = container.inspect("{{.Id}}");
    container.docker("pause", &[]).ok();
    container.docker("unpause", &[]).ok();
    container.executed(&[], Program::Exit("3")).expect(3);
    container.docker("stop", &[]).ok();
    container.docker("rm", &[]).ok();
    let actions = actions(bed, &id, &since);
    let mut rest = actions.iter();
    for expected in ["create", "start", "pause", "unpause", "exec_create", "exec_start", "kill", "die", "destroy"] {
        assert!(rest.any(|action| action.starts_with(expected)), "no {expected} in its place of {actions:?}");
    }
    assert!(actions.iter().any(|action| action == "exec_die"), "{actions:?}");
}

/// Killed by the kernel, and Docker knows why. A guest is told before that: `docker::memory_limit`.
fn out_of_memory(suite: Suite, kind: Kind) {
    if kind == Kind::Guest {
        return;
    }
    let bed = Bed::get(suite);
    bed.start_docker();
    let since = now(bed);
    let container = kind.container(bed, "oom");
    let limits = ["run", "--detach", "--name", &container.name, "--memory", "32m", "--memory-swap", "32m"];
    let eat = ["sh", "-c", "a=0123456789; while :; do a=$a$a; done"];
    bed.docker(&[&limits, kind.flags(), &[kind.image(bed)], &eat].concat()).run().ok();
    assert_eq!(container.docker("wait", &[]).ok().stdout, "137\n");
    wait_until(&container, "{{.State.OOMKilled}} {{.State.ExitCode}}", "true 137");
    let deadline = Instant::now() + vm::patience(Duration::from_secs(10));
    loop {
        let seen = actions(bed, &container.name, &since);
        if ["oom", "die"].iter().all(|action| seen.iter().any(|one| one == action)) {
            break;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
    }
}
