//! What the containers of a pod share, and what they have of the node.

use lighter_tests::cri::{Container, Pod, api::NamespaceMode};

use crate::target::{Target, guest, sh, targets};

targets! {
    shared_within_the_pod: Runc Native;
    one_pid_namespace_for_the_pod: Runc Native;
    the_pid_namespace_of_another: Runc Native;
    those_of_the_node: Runc Native Wasm;
    guests_beside_native_ones: Wasm;
    sysctls: Runc Native;
}

/// The container's processes' namespace of this kind, by its number.
const LINKS: &str = "for ns in net ipc uts pid mnt; do readlink /proc/self/ns/$ns; done";

#[track_caller]
fn links(container: &Container<'_, '_>) -> Vec<String> {
    container.wait_for("end");
    container.text().lines().map(str::to_owned).collect()
}

/// Of the bed's own processes.
fn of_the_node(pod: &Pod<'_, '_>) -> Vec<String> {
    pod.cri().bed().sh(LINKS).run().ok().stdout.lines().map(str::to_owned).collect()
}

fn shared_within_the_pod(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "shared").run();
    // Both at once: the number of a namespace that is gone may be given again.
    let containers = ["a", "b"].map(|name| sh(&pod, name, &format!("{LINKS}; echo end; sleep 1000")).start());
    let [first, second] = [links(&containers[0]), links(&containers[1])];
    let node = of_the_node(&pod);
    for (index, kind) in ["net", "ipc", "uts", "pid", "mnt"].into_iter().enumerate() {
        assert_ne!(first[index], node[index], "{kind}");
        assert_eq!(first[index] == second[index], index < 3, "{kind}");
    }
    // A file of the shared memory is the pod's.
    sh(&pod, "writer", "echo shared >/dev/shm/note").start().expect(0);
    assert_eq!(sh(&pod, "reader", "cat /dev/shm/note").start().expect(0), "shared\n");
    assert_eq!(sh(&pod, "first", "echo $$").start().expect(0), "1\n");
}

fn one_pid_namespace_for_the_pod(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "pid").namespaces(|namespaces| namespaces.set_pid(NamespaceMode::Pod)).run();
    let other = target.stays(&pod, "other").start();
    other.wait_for("ready");
    let seen = sh(&pod, "c", "echo $$; ps -o pid,args").start().expect(0);
    let (own, processes) = seen.split_once('\n').expect("lines");
    assert!(own.parse::<u32>().expect("a pid") > 1, "{seen}");
    assert!(processes.contains(" 1 /pause") && processes.contains("sleep 1000"), "{seen}");
    // Orphans are the pause's to reap.
    sh(&pod, "orphans", "(sleep 0.1 &) ; exit 0").start().expect(0);
    let zombies = || Some(sh_again(&pod)).filter(|seen| !seen.contains(" Z "));
    other.eventually("end of the orphans", zombies);
    other.stop(5).expect("stop");
    other.expect(143);
}

#[track_caller]
fn sh_again(pod: &Pod<'_, '_>) -> String {
    let container = sh(pod, "again", "ps -o pid,stat,args | sed 's/$/ /'").start();
    let seen = container.expect(0);
    container.remove().expect("remove");
    seen
}

/// As ephemeral containers of `kubectl debug --target`.
fn the_pid_namespace_of_another(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "target").run();
    let other = target.stays(&pod, "other").start();
    other.wait_for("ready");
    let container = sh(&pod, "debug", "ps -o pid,args").security(|security| {
        let namespaces = security.namespace_options.get_or_insert_default();
        namespaces.set_pid(NamespaceMode::Target);
        namespaces.target_id = other.id().to_owned();
    });
    let seen = container.start().expect(0);
    assert!(seen.contains(" 1 sh -c trap") && seen.contains("ps -o"), "{seen}");
}

fn those_of_the_node(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "node").namespaces(|namespaces| {
        namespaces.set_network(NamespaceMode::Node);
        namespaces.set_pid(NamespaceMode::Node);
        namespaces.set_ipc(NamespaceMode::Node);
    });
    let pod = pod.run();
    assert_eq!(pod.ip(), "");
    let namespaces = pod.status().linux.and_then(|linux| linux.namespaces?.options).expect("namespaces");
    assert_eq!(
        [namespaces.network(), namespaces.pid(), namespaces.ipc()],
        [NamespaceMode::Node, NamespaceMode::Node, NamespaceMode::Node]
    );
    if target.is_wasm() {
        let port = lighter_tests::free_port();
        cri.bed().in_network(|| {
            let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("listen");
            guest(&pod, "net", &["/net.wasm", "connect", &format!("127.0.0.1:{port}")]).start().expect(0);
            drop(listener);
        });
        return;
    }
    let seen = links(&sh(&pod, "c", &format!("{LINKS}; echo end")).start());
    let node = of_the_node(&pod);
    // What is the node's network's is its name as well.
    assert_eq!(seen[..4], node[..4]);
    assert_ne!(seen[4], node[4]);
}

/// A module serves, a program asks it, as a sidecar does.
fn guests_beside_native_ones(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "mixed").run();
    let handler = guest(&pod, "handler", &["/serve.wasm"]).start();
    let ask = "for n in $(seq 50); do wget -q -O - http://127.0.0.1:8080/ && exit; sleep 0.1; done; exit 1";
    let answer = sh(&pod, "sidecar", ask).start().expect(0);
    assert!(answer.contains("hello"), "{answer}");
    // And the other way round.
    let server = sh(&pod, "server", "echo ready; nc -l -p 9000 -e cat").start();
    server.wait_for("ready");
    guest(&pod, "client", &["/net.wasm", "connect", "127.0.0.1:9000"]).start().expect(0);
    let mut daemons = cri.bed().leftovers();
    daemons.retain(|line| line.starts_with("process") && line.contains("containerd-shim") && line.contains(pod.id()));
    assert_eq!(daemons.len(), 1, "one daemon a pod: {daemons:#?}");
    handler.stop(10).expect("stop");
    handler.expect(0);
}

fn sysctls(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "sysctls").linux(|linux| {
        linux.sysctls.insert("net.ipv4.ip_local_port_range".to_owned(), "20000 21000".to_owned());
        linux.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    });
    let pod = pod.run();
    let read = "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced | tr '\\t' ' '";
    assert_eq!(sh(&pod, "c", read).start().expect(0), "20000 21000\n1\n");
    assert_eq!(sh(&pod, "write", "echo 0 >/proc/sys/kernel/shm_rmid_forced").start().wait().exit_code, 1);
}
