//! The life of a container.

use std::time::{Duration, Instant};

use lighter_tests::cri::api::ContainerState;

use crate::target::{Kind, Target, guest, sh, targets};

targets! {
    it_is_created_started_and_ended: Runc Native Wasm;
    exit_codes: Runc Native Wasm;
    started_again: Runc Native Wasm;
    stopped_within_its_grace_period: Runc Native Wasm;
    a_stubborn_one_is_killed: Runc Native;
    a_busy_loop_is_stopped: Wasm;
    ended_twice: Runc Native Wasm;
    what_cannot_be_run: Runc Native Wasm;
    arguments_and_environment: Runc Native Wasm;
}

fn it_is_created_started_and_ended(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "container").run();
    let container = target.stays(&pod, "c").create();
    let status = container.status();
    assert_eq!(status.state(), ContainerState::ContainerCreated);
    assert!(status.created_at > 0 && status.started_at == 0, "{status:?}");
    container.start().expect("start");
    container.start().expect_err("a container starts once");
    container.wait_for("ready");
    let status = container.status();
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at && status.finished_at == 0, "{status:?}");
    assert!(status.image_ref.contains("sha256:"), "{status:?}");
    assert_eq!(pod.containers().iter().map(|listed| listed.id.as_str()).collect::<Vec<_>>(), [container.id()]);
    container.stop(10).expect("stop");
    let status = container.status();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 143));
    assert!(status.finished_at >= status.started_at, "{status:?}");
    container.remove().expect("remove");
    assert!(pod.containers().is_empty());
    cri.bed().assert_gone(container.id());
    assert!(pod.is_ready());
}

fn exit_codes(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "codes").run();
    for (code, reason) in [(0, "Completed"), (1, "Error"), (42, "Error"), (125, "Error")] {
        let container = target.exits(&pod, &format!("c{code}"), code).start();
        container.expect(code);
        assert_eq!(container.status().reason, reason, "{code}");
    }
}

fn started_again(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "again").run();
    for attempt in 0..3 {
        let container = target.exits(&pod, "c", 7).attempt(attempt).start();
        container.expect(7);
        let metadata = container.status().metadata.expect("metadata");
        assert_eq!((metadata.name.as_str(), metadata.attempt), ("c", attempt));
        if attempt > 0 {
            container.remove().expect("remove");
        }
    }
    assert_eq!(pod.containers().len(), 1);
}

fn stopped_within_its_grace_period(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "grace").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let begun = Instant::now();
    container.stop(20).expect("stop");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    container.expect(143);
    // Without a grace period there is no SIGTERM.
    let container = target.stays(&pod, "killed").start();
    container.wait_for("ready");
    container.stop(0).expect("stop at once");
    container.expect(137);
}

fn a_stubborn_one_is_killed(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "stubborn").run();
    let container = sh(&pod, "c", "trap 'echo not yet' TERM; echo ready; while :; do sleep 0.1; done").start();
    container.wait_for("ready");
    let begun = Instant::now();
    container.stop(1).expect("stop");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(container.expect(137), "ready\nnot yet\n");
}

fn a_busy_loop_is_stopped(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "busy").run();
    let container = guest(&pod, "c", &["/busy.wasm"]).start();
    container.wait_for("ready");
    let begun = Instant::now();
    container.stop(20).expect("stop");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    container.expect(143);
}

fn ended_twice(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "ended-twice").run();
    let container = target.stays(&pod, "c").start();
    container.stop(5).expect("stop");
    container.stop(5).expect("stop again");
    container.remove().expect("remove");
    container.remove().expect("remove again");
    // One that runs, and one that never did.
    let running = target.stays(&pod, "running").start();
    running.remove().expect("remove what runs");
    let created = target.stays(&pod, "created").create();
    created.remove().expect("remove what was never started");
    for container in [container, running, created] {
        cri.bed().assert_gone(container.id());
    }
}

fn what_cannot_be_run(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "nope").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/nope.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "").command(&["/bin/nope"]),
    };
    let container = container.create();
    let message = container.start().expect_err("there is no such program").message().to_owned();
    assert!(message.contains("nope") && message.contains("no such file"), "{message}");
    let status = container.status();
    assert_eq!(status.state(), ContainerState::ContainerExited, "{status:?}");
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");
    assert!(status.message.contains("nope"), "{status:?}");
    assert!(pod.is_ready());
    container.remove().expect("remove");
    cri.bed().assert_gone(container.id());
}

fn arguments_and_environment(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "given").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/show.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "").command(&[
            "sh",
            "-c",
            r#"for word; do echo "arg[$((n += 1))]=$word"; done; env | sed 's/^/env /'"#,
            "show",
        ]),
    };
    let container = container.args(&["a", "b c", ""]).env("COLOUR", "blue").env("EMPTY", "");
    let text = container.start().expect(0);
    for line in ["arg[1]=a", "arg[2]=b c", "arg[3]=", "env COLOUR=blue", "env EMPTY="] {
        assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
    }
    let container = target.files(&pod, "folder", &["read", "file"]);
    assert_eq!(container.with(|config| config.working_dir = "/data".to_owned()).start().expect(0), "of the folder\n");
}
