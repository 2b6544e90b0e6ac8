//! Limits, their change while a container runs, what is told of their use, and ends by them.

use std::time::Duration;

use lighter_tests::{
    cri::{
        Container, Pod,
        api::{
            ContainerStats, ContainerStatsFilter, LinuxContainerResources, ListContainerStatsRequest,
            PodSandboxStatsRequest,
        },
    },
    vm,
};

use crate::target::{Kind, Target, guest, sh, targets};

targets! {
    memory: Runc Native Wasm;
    out_of_memory: Runc Native;
    cgroups: Runc Native Wasm;
    changed_while_it_runs: Runc Native Wasm;
    use_of_containers: Runc Native Wasm;
    use_of_pods: Runc Native Wasm;
    the_parent_cgroup: Runc Native Wasm;
    oom_score: Runc Native Wasm;
    a_guests_trap_is_the_termination_message: Wasm;
    a_programs_termination_message: Runc Native;
}

const MIB: i64 = 1 << 20;

/// What the container's cgroup says, by its name on v1 or on v2.
#[track_caller]
fn cgroup(container: &Container<'_, '_>, pod: &Pod<'_, '_>, v1: &str, v2: &str) -> String {
    let script = format!(
        "cd /sys/fs/cgroup; test -e cgroup.controllers && name={v2} || name={v1}; \
         cat $(find . -path \"*{}*/${{name#*/}}\" -path \"*${{name%%/*}}*\" | head -n 1)",
        container.id()
    );
    let v2_or_v1 = pod.cri().bed().sh(&script).run().ok();
    v2_or_v1.stdout.trim().to_owned()
}

fn memory(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "memory").run();
    let limit = |resources: &mut LinuxContainerResources| resources.memory_limit_in_bytes = 64 * MIB;
    match target.kind {
        Kind::Wasm => {
            // It is told before the kernel kills.
            let text = guest(&pod, "c", &["/memory.wasm"]).resources(limit).start().expect(0);
            let mib = text
                .trim()
                .strip_prefix("memory.grow failed at ")
                .and_then(|rest| rest.split(' ').next()?.parse().ok());
            let mib: u32 = mib.unwrap_or_else(|| panic!("{text}"));
            assert!((16..64).contains(&mib), "{text}");
        }
        Kind::Runc | Kind::Native => {
            let text =
                sh(&pod, "c", "a=$(head -c 10000000 /dev/zero | tr '\\0' x); echo ${#a}").resources(limit).start();
            assert_eq!(text.expect(0), "10000000\n");
        }
    }
}

fn out_of_memory(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "oom").run();
    // Not at once: who tells of it has to be there.
    let eat = sh(&pod, "c", "sleep 0.5; exec tail -c 500m /dev/zero").resources(|resources| {
        resources.memory_limit_in_bytes = 24 * MIB;
        resources.memory_swap_limit_in_bytes = 24 * MIB;
    });
    let eat = eat.start();
    eat.expect(137);
    let told = || Some(eat.status().reason).filter(|reason| reason == "OOMKilled");
    eat.eventually("reason OOMKilled", told);
    assert!(pod.is_ready());
}

fn cgroups(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "cgroups").run();
    let container = target.stays(&pod, "c").resources(|resources| {
        resources.memory_limit_in_bytes = 128 * MIB;
        (resources.cpu_period, resources.cpu_quota) = (100_000, 50_000);
        resources.cpu_shares = 512;
    });
    let container = container.start();
    container.wait_for("ready");
    assert_eq!(cgroup(&container, &pod, "memory/memory.limit_in_bytes", "memory.max"), (128 * MIB).to_string());
    let quota = cgroup(&container, &pod, "cpu/cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split(' ').next(), Some("50000"));
}

fn changed_while_it_runs(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "update").run();
    let container = target.stays(&pod, "c").resources(|resources| resources.memory_limit_in_bytes = 64 * MIB).start();
    container.wait_for("ready");
    let update = |memory: i64, quota: i64| {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: memory * MIB,
            cpu_period: 100_000,
            cpu_quota: quota,
            ..LinuxContainerResources::default()
        };
        container.update(resources).expect("update");
        assert_eq!(cgroup(&container, &pod, "memory/memory.limit_in_bytes", "memory.max"), (memory * MIB).to_string());
        let told = cgroup(&container, &pod, "cpu/cpu.cfs_quota_us", "cpu.max");
        assert_eq!(told.split(' ').next(), Some(quota.to_string().as_str()));
    };
    update(128, 20_000);
    update(96, 70_000);
    let told =
        container.status().resources.and_then(|resources| resources.linux).map(|linux| linux.memory_limit_in_bytes);
    assert_eq!(told, Some(96 * MIB));
    container.stop(5).expect("stop");
    container.expect(143);
}

#[track_caller]
fn assert_plausible(stats: &ContainerStats) {
    let cpu = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds).map_or(0, |usage| usage.value);
    let memory = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes).map_or(0, |bytes| bytes.value);
    assert!((1_000_000..600_000_000_000).contains(&cpu), "{cpu} ns: {stats:?}");
    assert!((4096..1 << 30).contains(&memory), "{memory} bytes: {stats:?}");
}

/// A container that computes.
fn computes<'pod, 'bed>(target: Target, pod: &'pod Pod<'_, 'bed>) -> Container<'pod, 'bed> {
    let container = match target.kind {
        Kind::Wasm => guest(pod, "c", &["/busy.wasm"]),
        Kind::Runc | Kind::Native => sh(pod, "c", "echo ready; while :; do :; done"),
    };
    // A tenth of a processor, for the other tests' sake.
    let container =
        container.resources(|resources| (resources.cpu_period, resources.cpu_quota) = (100_000, 10_000)).start();
    container.wait_for("ready");
    std::thread::sleep(Duration::from_millis(300));
    container
}

fn use_of_containers(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "stats").run();
    let container = computes(target, &pod);
    let stats = container.stats().expect("stats");
    assert_plausible(&stats);
    let attributes = stats.attributes.expect("attributes");
    assert_eq!((attributes.id.as_str(), attributes.metadata), (container.id(), container.status().metadata));
    let filter = ContainerStatsFilter { pod_sandbox_id: pod.id().to_owned(), ..ContainerStatsFilter::default() };
    let request = ListContainerStatsRequest { filter: Some(filter) };
    let listed = cri.call(async |runtime| runtime.list_container_stats(request).await).expect("stats").stats;
    assert_eq!(listed.len(), 1);
    assert_plausible(&listed[0]);
    let cpu = |stats: &ContainerStats| {
        stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds).map(|usage| usage.value)
    };
    container.eventually("more use", || (cpu(&container.stats().expect("stats")) > cpu(&listed[0])).then_some(()));
}

fn use_of_pods(target: Target) {
    let cri = target.cri();
    let parent = parent(target, "stats");
    let pod = target.pod(&cri, "pod-stats").linux(|linux| linux.cgroup_parent.clone_from(&parent)).run();
    let container = computes(target, &pod);
    let request = PodSandboxStatsRequest { pod_sandbox_id: pod.id().to_owned() };
    let stats =
        cri.call(async |runtime| runtime.pod_sandbox_stats(request).await).expect("stats").stats.expect("stats");
    let linux = stats.linux.expect("figures of Linux");
    let interface = linux.network.as_ref().and_then(|network| network.default_interface.clone());
    assert!(interface.is_some_and(|interface| interface.name == "eth0"), "{linux:?}");
    let processes = linux.process.as_ref().and_then(|process| process.process_count).map(|count| count.value);
    assert!(processes.is_some_and(|count| count > 0), "{linux:?}");
    assert_eq!(linux.containers.len(), 1);
    assert_plausible(&linux.containers[0]);
    assert_eq!(linux.containers[0].attributes.as_ref().map(|attributes| attributes.id.as_str()), Some(container.id()));
}

/// A pod's cgroup as the kubelet names it: its folder below a hierarchy's root.
fn parent(target: Target, name: &str) -> String {
    let kind = format!("{:?}", target.kind).to_lowercase();
    if vm::has_systemds_cgroups() {
        // Dashes are levels. Source: systemd.slice(5).
        format!("/kubepods.slice/kubepods-{name}_{kind}.slice")
    } else {
        format!("/kubepods/{name}-{kind}")
    }
}

/// The kubelet makes a cgroup for each pod.
fn the_parent_cgroup(target: Target) {
    let cri = target.cri();
    let parent = parent(target, "pod");
    let pod = target.pod(&cri, "parent").linux(|linux| linux.cgroup_parent.clone_from(&parent)).run();
    let container = target.stays(&pod, "c").start();
    let found = format!("find /sys/fs/cgroup -type d -path '*{parent}/*{}*'", container.id());
    assert!(!cri.bed().sh(&found).run().ok().stdout.is_empty());
    container.stop(0).expect("stop");
    container.remove().expect("remove");
    pod.remove().expect("remove the pod");
    let left = format!("find /sys/fs/cgroup -type d -path '*{parent}/*'");
    assert_eq!(cri.bed().sh(&left).run().ok().stdout, "");
    // Which it removes.
    cri.bed().sh(&format!("find /sys/fs/cgroup -depth -type d -path '*{parent}*' -exec rmdir {{}} ';'")).run().ok();
}

fn oom_score(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "score").run();
    let container = target.stays(&pod, "c").resources(|resources| resources.oom_score_adj = 987).start();
    container.wait_for("ready");
    let read = format!("find /sys/fs/cgroup -path '*{}*/cgroup.procs' -exec cat {{}} + | head -n 1", container.id());
    let pid = cri.bed().sh(&read).run().ok().stdout;
    let score = cri.bed().sh(&format!("cat /proc/{}/oom_score_adj", pid.trim())).run().ok();
    assert_eq!(score.stdout, "987\n");
}

/// The file that the kubelet mounts for it, and shows in the pod's status; `written` is in it already.
fn with_message(target: Target, written: &str, command: &[&str]) -> (i32, String) {
    let cri = target.cri();
    let path = format!("/srv/cri/message-{:?}", target.kind);
    cri.bed().sh(&format!("mkdir -p /srv/cri && printf %s '{written}' >{path} && chmod 0666 {path}")).run().ok();
    let pod = target.pod(&cri, "message").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", command),
        Kind::Runc | Kind::Native => sh(&pod, "c", "").command(command),
    };
    let container = container.mount(&path, "/dev/termination-log", false).start();
    let code = container.wait().exit_code;
    (code, cri.bed().sh(&format!("cat {path}")).run().ok().stdout)
}

fn a_guests_trap_is_the_termination_message(target: Target) {
    let (code, message) = with_message(target, "the guests own words", &["/trap.wasm"]);
    assert_eq!(code, 134);
    assert!(message.starts_with("the guests own words\n"), "{message}");
    assert!(message.contains("unreachable") && message.contains("inner"), "{message}");
}

fn a_programs_termination_message(target: Target) {
    let (code, message) = with_message(target, "", &["sh", "-c", "echo last words >/dev/termination-log; exit 3"]);
    assert_eq!((code, message.as_str()), (3, "last words\n"));
}
