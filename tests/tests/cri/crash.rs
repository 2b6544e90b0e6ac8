//! Many pods at once, a restart of containerd beneath them, and what is left when they are gone.

use std::thread;

use lighter_tests::{
    Bed, Suite,
    cri::{Cri, api::ContainerState},
    on_every_suite,
};

use crate::target::{Kind, Target, targets};

on_every_suite! { many_pods_at_once }

targets! {
    containerd_restarted: Runc Native Wasm;
    a_daemon_killed: Runc Native Wasm;
}

const KINDS: [Kind; 3] = [Kind::Runc, Kind::Native, Kind::Wasm];

/// Panics unless all pods are gone, to their networks.
#[track_caller]
fn assert_nothing_left(cri: &Cri<'_>) {
    cri.bed().assert_clean();
    let networks = cri.networks();
    assert!(networks.is_empty(), "{networks:?}");
}

fn many_pods_at_once(suite: Suite) {
    let bed = Bed::fresh(suite);
    let bed: &Bed = &bed;
    thread::scope(|scope| {
        for number in 0..5 {
            scope.spawn(move || {
                let target = Target { suite, kind: KINDS[number % KINDS.len()] };
                let cri = Cri::connect(bed);
                let pod = target.pod(&cri, &format!("many-{number}")).run();
                let containers: Vec<_> = (0..4).map(|c| target.stays(&pod, &format!("c{c}")).start()).collect();
                containers.iter().for_each(|container| container.wait_for("ready"));
                assert_eq!(pod.containers().len(), 4);
                containers[0].stop(10).expect("stop");
                containers[0].expect(143);
                pod.stop().expect("stop the pod");
                pod.remove().expect("remove the pod");
            });
        }
    });
    assert_nothing_left(&Cri::connect(bed));
}

fn containerd_restarted(target: Target) {
    let bed = Bed::fresh(target.suite);
    let before = Cri::connect(&bed);
    let pod = target.pod(&before, "kept").run();
    let [stays, ends] = ["stays", "ends"].map(|name| {
        let container = target.stays(&pod, name).start();
        container.wait_for("ready");
        container.id().to_owned()
    });
    bed.kill_containerd();
    // Nobody sees this one's end.
    let script = "kill -KILL $(cat $(find /sys/fs/cgroup -path \"*$0/cgroup.procs\") | sort -u)";
    bed.cmd(&["sh", "-c", script, &ends]).run().ok();
    bed.start_containerd();

    let cri = Cri::connect(&bed);
    let pod = cri.known_pod(&pod);
    assert!(pod.is_ready());
    let listed = |id: &str| {
        let containers = pod.containers();
        assert_eq!(containers.len(), 2);
        containers.iter().find(|listed| listed.id == id).expect("a container of before").state()
    };
    // That one may be told of a moment later.
    let ended = || (listed(&ends) == ContainerState::ContainerExited).then_some(());
    pod.known_container(&ends).eventually("end", ended);
    assert_eq!(listed(&stays), ContainerState::ContainerRunning);
    let container = pod.known_container(&stays);
    let command: &[&str] = if target.is_wasm() { &["/exit.wasm", "3"] } else { &["sh", "-c", "exit 3"] };
    assert_eq!(container.exec_sync(command, 10).expect("exec").exit_code, 3);
    container.stop(10).expect("stop");
    container.expect(143);
    // containerd may call it unknown.
    assert_ne!(pod.known_container(&ends).status().exit_code, 0);
    // What comes next is as ever.
    target.exits(&pod, "next", 5).start().expect(5);
    pod.stop().expect("stop the pod");
    pod.remove().expect("remove the pod");
    assert_nothing_left(&cri);
}

fn a_daemon_killed(target: Target) {
    let bed = Bed::fresh(target.suite);
    let cri = Cri::connect(&bed);
    let pod = target.pod(&cri, "orphaned").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let processes = bed.leftovers();
    let daemon =
        processes.iter().find(|line| line.starts_with("process") && line.contains(&format!("-id {}", pod.id())));
    let pid = daemon.and_then(|line| line.split(' ').nth(1)).expect("the pod's daemon");
    bed.cmd(&["kill", "-KILL", pid]).run().ok();
    let ended = || (container.status().state() == ContainerState::ContainerExited).then_some(());
    container.eventually("end", ended);
    pod.stop().expect("stop the pod");
    pod.remove().expect("remove the pod");
    // runc leaves cgroups.
    if target.kind != Kind::Runc {
        assert_nothing_left(&cri);
    }
}
