//! Pods without a pause container: containerd leaves them to the shim (`sandboxer = "shim"`), whose daemon holds them.
//!
//! containerd 2.x only; 1.7 does not know the setting, and runs a pause container. Pods on the node's network are left out:
//! containerd 2.1 itself crashes on them (a nil spec in `NewBundle`), whatever the shim.

use std::fs;

use lighter_tests::{
    Bed, Suite,
    cri::{
        Code, Container, Cri, Pod, PodBuilder,
        api::{ContainerState, DnsConfig, NamespaceMode, UserNamespace},
    },
};

use crate::target::{guest, sh};

const HANDLER: &str = "lighter-sandbox";

fn shared() -> Cri<'static> {
    Cri::connect(Bed::get(Suite::Forky))
}

fn held<'cri, 'bed>(cri: &'cri Cri<'bed>, name: &str) -> PodBuilder<'cri, 'bed> {
    cri.pod(HANDLER, &format!("held-{name}"))
}

fn one_pid_namespace<'cri, 'bed>(pod: PodBuilder<'cri, 'bed>) -> PodBuilder<'cri, 'bed> {
    pod.namespaces(|namespaces| namespaces.set_pid(NamespaceMode::Pod))
}

/// Stays until SIGTERM, which ends it with 143.
fn stays<'pod, 'bed>(pod: &'pod Pod<'_, 'bed>, name: &str) -> Container<'pod, 'bed> {
    let script = "trap 'exit 143' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let container = sh(pod, name, script).start();
    container.wait_for("ready");
    container
}

/// The pod's daemon and what are its children: pids in the bed.
#[track_caller]
fn processes(pod: &Pod<'_, '_>) -> Vec<u32> {
    let bed = pod.cri().bed();
    let lines = bed.leftovers();
    let mut daemons = lines.iter().filter(|line| {
        line.starts_with("process") && line.contains("containerd-shim") && line.contains(&format!("-id {}", pod.id()))
    });
    let daemon = daemons.next().unwrap_or_else(|| panic!("no daemon of {}: {lines:#?}", pod.id()));
    assert!(daemons.next().is_none(), "one daemon a pod: {lines:#?}");
    let daemon: u32 = daemon.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    let threads = fs::read_dir(bed.path(format!("/proc/{daemon}/task"))).expect("threads");
    let children = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<String> =
        children.flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
    [daemon].into_iter().chain(children.iter().filter_map(|pid| pid.parse().ok())).collect()
}

#[test]
fn guests_and_programs_share_what_is_the_pods() {
    let cri = shared();
    let pod = held(&cri, "shared").with(|config| {
        config.hostname = "barge".to_owned();
        config.dns_config = Some(DnsConfig {
            servers: vec!["10.96.0.10".to_owned()],
            searches: vec!["tests.svc".to_owned()],
            options: vec!["ndots:5".to_owned()],
        });
    });
    let pod = pod
        .linux(|linux| {
            linux.sysctls.insert("net.ipv4.ip_local_port_range".to_owned(), "20000 21000".to_owned());
            linux.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
        })
        .run();
    assert!(pod.is_ready());
    assert_eq!(processes(&pod).len(), 1, "the daemon alone, and no pause");

    let said = sh(&pod, "says", "hostname; cat /etc/hostname /etc/resolv.conf; grep -c localhost /etc/hosts").start();
    let resolver = "search tests.svc\nnameserver 10.96.0.10\noptions ndots:5\n";
    let said = said.expect(0);
    assert!(said.starts_with(&format!("barge\nbarge\n{resolver}")) && !said.ends_with("\n0\n"), "{said}");
    let set = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced \
               /proc/sys/net/ipv4/ip_unprivileged_port_start | tr '\\t' ' '";
    assert_eq!(sh(&pod, "sysctls", set).start().expect(0), "20000 21000\n1\n0\n");

    // Network: a module serves, a program asks.
    let handler = guest(&pod, "handler", &["/serve.wasm"]).start();
    let ask = "for n in $(seq 50); do wget -q -O - http://127.0.0.1:8080/ && exit; sleep 0.1; done; exit 1";
    assert!(sh(&pod, "asks", ask).start().expect(0).contains("hello"));
    // Shared memory: a program writes, a module reads.
    sh(&pod, "writes", "echo shared >/dev/shm/note").start().expect(0);
    assert_eq!(guest(&pod, "reads", &["/files.wasm", "read", "/dev/shm/note"]).start().expect(0).trim(), "shared");
    assert!(guest(&pod, "resolver", &["/files.wasm", "read", "/etc/resolv.conf"]).start().expect(0).contains("ndots"));
    // IPC: both at once, for the number of a namespace that is gone may be given again.
    let links = "for ns in net ipc uts pid; do readlink /proc/self/ns/$ns; done; echo end; sleep 1000";
    let seen = ["a", "b"].map(|name| sh(&pod, name, links).start()).map(|container| {
        container.wait_for("end");
        container.text().lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let node = cri.bed().sh("for ns in net ipc uts pid; do readlink /proc/self/ns/$ns; done").run().ok().stdout;
    for (index, node) in node.lines().enumerate() {
        assert_ne!(seen[0][index], node);
        assert_eq!(seen[0][index] == seen[1][index], index < 3, "{node}");
    }

    handler.stop(10).expect("stop");
    handler.expect(0);
    pod.stop().expect("stop the pod");
    assert!(!pod.is_ready());
    pod.stop().expect("stop it again");
    pod.remove().expect("remove the pod");
    cri.bed().assert_gone(pod.id());
}

#[test]
fn the_first_process_of_a_shared_pid_namespace() {
    let cri = shared();
    let pod = one_pid_namespace(held(&cri, "pids")).run();
    assert_eq!(processes(&pod).len(), 2, "the daemon and the first process");
    let other = stays(&pod, "other");
    let seen = sh(&pod, "c", "echo $$; ps -o pid,args").start().expect(0);
    let (own, listed) = seen.split_once('\n').expect("lines");
    assert!(own.parse::<u32>().expect("a pid") > 1, "{seen}");
    assert!(listed.contains(" pod hold-processes") && listed.contains("sleep 1000"), "{seen}");
    // It reaps orphans.
    sh(&pod, "orphans", "(sleep 0.1 &) ; exit 0").start().expect(0);
    let zombies = || {
        let again = sh(&pod, "again", "ps -o pid,stat,args | sed 's/$/ /'").start();
        let seen = again.expect(0);
        again.remove().expect("remove");
        (!seen.contains(" Z ")).then_some(())
    };
    other.eventually("end of the orphans", zombies);
    // And is worth nothing to them: root of a container, as Kubernetes makes it, can't look at it, nor end it.
    let status = sh(&pod, "status", "grep -E '^(Cap(Prm|Eff)|Seccomp):' /proc/1/status").start().expect(0);
    let status = status.replace('\t', " ");
    assert!(status.contains("CapPrm: 0000000000000000") && status.contains("CapEff: 0000000000000000"), "{status}");
    assert!(status.contains("Seccomp: 1\n"), "{status}");
    sh(&pod, "root", "ls /proc/1/root/").start().expect(1);
    sh(&pod, "exe", "readlink /proc/1/exe").start().expect(1);
    sh(&pod, "end", "kill -KILL 1; kill -TERM 1; sleep 0.2; exit 0").start().expect(0);
    // Who may look, finds nothing.
    let tracer = sh(&pod, "tracer", "ls -A /proc/1/root/ && echo empty").security(|security| {
        security.capabilities.get_or_insert_default().add_capabilities.push("SYS_PTRACE".to_owned());
    });
    assert_eq!(tracer.start().expect(0), "empty\n");
    assert!(pod.is_ready());
    other.stop(5).expect("stop");
    other.expect(143);
    pod.remove().expect("remove the pod");
    cri.bed().assert_gone(pod.id());
}

#[test]
fn a_container_that_can_not_be_made_leaves_the_pod_as_it_was() {
    let cri = shared();
    let pod = held(&cri, "failed").run();
    let missing = guest(&pod, "missing", &["/missing.wasm"]).create();
    let error = missing.start().expect_err("there is no such module");
    assert!(error.message().contains("/missing.wasm"), "{error}");
    missing.remove().expect("remove");
    assert!(pod.is_ready());
    sh(&pod, "next", "exit 3").start().expect(3);
    pod.remove().expect("remove the pod");
    cri.bed().assert_gone(pod.id());
}

#[test]
fn a_pod_ends_with_its_first_process() {
    let cri = shared();
    let pod = one_pid_namespace(held(&cri, "killed")).run();
    let container = stays(&pod, "c");
    let first = processes(&pod)[1..].iter().copied().min().expect("the first process");
    cri.bed().cmd(&["kill", "-KILL", &first.to_string()]).run().ok();
    container.expect(137);
    container.eventually("end of the pod", || (!pod.is_ready()).then_some(()));
    pod.stop().expect("stop the pod");
    pod.remove().expect("remove the pod");
    cri.bed().assert_gone(pod.id());
}

#[test]
fn what_can_not_be_had_is_refused_and_leaves_nothing() {
    let bed = Bed::fresh(Suite::Forky);
    let cri = Cri::connect(&bed);
    let mut table = vec![
        (
            held(&cri, "core").linux(|linux| drop(linux.sysctls.insert("kernel.core_pattern".into(), "x".into()))),
            "kernel.core_pattern: it is the host's",
        ),
        (
            held(&cri, "odd").linux(|linux| drop(linux.sysctls.insert("net.ipv4.no_such".into(), "1".into()))),
            "set sysctl net/ipv4/no_such",
        ),
    ];
    let users = held(&cri, "users").namespaces(|namespaces| {
        let mode = NamespaceMode::Pod.into();
        let ids = |host_id| vec![lighter_tests::cri::api::IdMapping { host_id, container_id: 0, length: 65536 }];
        namespaces.userns_options = Some(UserNamespace { mode, uids: ids(100_000), gids: ids(100_000) });
    });
    table.push((users, "hostUsers"));
    for (pod, why) in table {
        let error = pod.try_run().err().unwrap_or_else(|| panic!("it should be refused: {why}"));
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(why), "{error}");
    }
    bed.assert_clean();
    assert!(cri.networks().is_empty(), "{:?}", cri.networks());
}

#[test]
fn containerd_restarted() {
    let bed = Bed::fresh(Suite::Forky);
    let before = Cri::connect(&bed);
    let pods = [held(&before, "kept").run(), one_pid_namespace(held(&before, "kept-pids")).run()];
    let ids = [0, 1].map(|index| stays(&pods[index], "stays").id().to_owned());
    bed.kill_containerd();
    bed.start_containerd();

    let cri = Cri::connect(&bed);
    for (pod, id) in pods.iter().zip(&ids) {
        let pod = cri.known_pod(pod);
        assert!(pod.is_ready());
        let container = pod.known_container(id);
        assert_eq!(container.status().state(), ContainerState::ContainerRunning);
        assert_eq!(container.exec_sync(&["sh", "-c", "exit 3"], 10).expect("exec").exit_code, 3);
        sh(&pod, "next", "cat /etc/hosts").start().expect(0);
        container.stop(10).expect("stop");
        assert_eq!(container.wait().exit_code, 143);
        pod.stop().expect("stop the pod");
        assert!(!pod.is_ready());
        pod.remove().expect("remove the pod");
    }
    bed.assert_clean();
    assert!(cri.networks().is_empty(), "{:?}", cri.networks());
}

#[test]
fn a_daemon_killed() {
    let bed = Bed::fresh(Suite::Forky);
    let cri = Cri::connect(&bed);
    let pods = [held(&cri, "orphaned"), one_pid_namespace(held(&cri, "orphaned-pids"))];
    for pod in pods {
        let pod = pod.run();
        let (program, module) = (stays(&pod, "program"), guest(&pod, "module", &["/sleep.wasm"]).start());
        module.wait_for("ready");
        let daemon = processes(&pod)[0].to_string();
        bed.cmd(&["kill", "-KILL", &daemon]).run().ok();
        for container in [&program, &module] {
            let ended = || (container.status().state() == ContainerState::ContainerExited).then_some(());
            container.eventually("end", ended);
        }
        program.eventually("end of the pod", || (!pod.is_ready()).then_some(()));
        pod.stop().expect("stop the pod");
        pod.remove().expect("remove the pod");
        bed.assert_clean();
        assert!(cri.networks().is_empty(), "{:?}", cri.networks());
    }
}

/// 1.7 takes no notice of the setting.
#[test]
fn a_pause_container_holds_it_on_1_7() {
    let cri = Cri::connect(Bed::get(Suite::Trixie));
    let pod = held(&cri, "paused").run();
    assert_eq!(processes(&pod).len(), 2, "the daemon and the pause");
    sh(&pod, "c", "exit 3").start().expect(3);
    pod.remove().expect("remove the pod");
    cri.bed().assert_gone(pod.id());
}
