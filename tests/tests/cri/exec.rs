//! ExecSync: what probes and `kubectl exec` without a terminal do.

use std::{
    thread,
    time::{Duration, Instant},
};

use lighter_tests::cri::{Code, Container, Cri, api::Int64Value, refused};

use crate::target::{Kind, Target, targets, wasm};

targets! {
    output_and_exit_codes: Runc Native Wasm;
    as_the_container_is: Runc Native Wasm;
    what_takes_too_long: Runc Native Wasm;
    what_cannot_be_run: Runc Native Wasm;
    in_what_does_not_run: Runc Native Wasm;
    many_at_once: Runc Native Wasm;
    ended_with_its_container: Runc Native Wasm;
    by_the_engine_of_its_container: Wasm;
    of_the_other_kind: Native Wasm;
}

impl Target {
    /// A command that a container that stays can be told to run: by a shell, or one of the image's guests.
    fn either<'a>(self, script: &'a str, guest: &[&'a str]) -> Vec<&'a str> {
        match self.kind {
            Kind::Wasm => guest.to_vec(),
            Kind::Runc | Kind::Native => vec!["sh", "-c", script],
        }
    }
}

#[track_caller]
fn exec(container: &Container<'_, '_>, command: &[&str]) -> (i32, String, String) {
    let response = container.exec_sync(command, 20).unwrap_or_else(|status| panic!("{command:?}: {status}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (response.exit_code, text(response.stdout), text(response.stderr))
}

fn output_and_exit_codes(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let hello = target.either("echo hello from wasm; echo and to stderr >&2", &["/hello.wasm"]);
    assert_eq!(exec(&container, &hello), (0, "hello from wasm\n".to_owned(), "and to stderr\n".to_owned()));
    for code in [0, 1, 42, 125] {
        let number = code.to_string();
        let script = format!("exit {number}");
        assert_eq!(exec(&container, &target.either(&script, &["/exit.wasm", &number])).0, code);
    }
    // There is nothing on its stdin.
    let (code, stdout, stderr) = exec(&container, &target.either("cat; echo EOF 0 >&2", &["/cat.wasm"]));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", "EOF 0\n"));
    let flood = exec(&container, &target.either("head -c 1000000 /dev/zero | tr '\\0' x", &["/flood.wasm", "1000000"]));
    assert_eq!((flood.0, flood.1.len()), (0, 1_000_000));
    if target.is_wasm() {
        assert_eq!(exec(&container, &["/trap.wasm"]).0, 134);
    }
    // None of it is the container's own.
    assert_eq!(container.text(), "ready\n");
    container.stop(5).expect("stop");
    container.expect(143);
}

fn as_the_container_is(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-as").run();
    let volume = format!("/srv/cri/exec-{:?}", target.kind);
    cri.bed().sh(&format!("mkdir -p {volume} && chmod 0777 {volume}")).run().ok();
    let container = target.stays(&pod, "c").mount(&volume, "/volume", false).env("COLOUR", "blue");
    let container = container.with(|config| config.working_dir = "/data".to_owned());
    let container = container.security(|context| {
        context.run_as_user = Some(Int64Value { value: 1234 });
        context.run_as_group = Some(Int64Value { value: 4321 });
        context.readonly_rootfs = true;
    });
    let container = container.start();
    container.wait_for("ready");
    let read = |path| target.either("cat file", &["/files.wasm", "read", path]);
    assert_eq!(exec(&container, &read("file")).1.trim(), "of the folder");
    let write = target.either("echo >/volume/new", &["/files.wasm", "write", "/volume/new", ""]);
    assert_eq!(exec(&container, &write).0, 0);
    assert_eq!(cri.bed().sh(&format!("stat -c %u:%g {volume}/new")).run().ok().stdout, "1234:4321\n");
    let write = target.either("echo >/data/new", &["/files.wasm", "write", "/data/new", ""]);
    assert_eq!(exec(&container, &write).0, 1);
    let environment = exec(&container, &target.either("env", &["/show.wasm"])).1;
    assert!(environment.contains("COLOUR=blue"), "{environment}");
}

fn what_takes_too_long(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-long").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let processes = || {
        let script =
            format!("find /sys/fs/cgroup -path '*{}/cgroup.procs' -exec cat {{}} + | sort -u | wc -l", container.id());
        cri.bed().sh(&script).run().ok().stdout
    };
    let before = processes();
    let begun = Instant::now();
    let long = target.either("exec sleep 100", &["/sleep.wasm", "100"]);
    refused(container.exec_sync(&long, 1), Code::DeadlineExceeded);
    assert!((1..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    container.eventually("end of it", || (processes() == before).then_some(()));
    // The container doesn't notice.
    assert_eq!(exec(&container, &target.either("exit 3", &["/exit.wasm", "3"])).0, 3);
}

fn what_cannot_be_run(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-nope").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let refused = container.exec_sync(&["/nope"], 5).expect_err("there is no such program");
    assert!(refused.message().contains("nope") && refused.message().contains("no such file"), "{refused}");
    container.exec_sync(&[], 5).expect_err("nothing to run");
    assert_eq!(exec(&container, &target.either("exit 3", &["/exit.wasm", "3"])).0, 3);
}

fn in_what_does_not_run(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-dead").run();
    let command = target.either("exit 0", &["/exit.wasm", "0"]);
    let container = target.stays(&pod, "c").create();
    let refused = container.exec_sync(&command, 5).expect_err("it was never started");
    assert!(refused.message().contains("CONTAINER_CREATED"), "{refused}");
    container.start().expect("start");
    container.stop(5).expect("stop");
    let refused = container.exec_sync(&command, 5).expect_err("it has ended");
    assert!(refused.message().contains("CONTAINER_EXITED"), "{refused}");
}

fn many_at_once(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-many").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let (id, bed) = (container.id().to_owned(), cri.bed());
    thread::scope(|scope| {
        for code in 1..=12 {
            let id = &id;
            scope.spawn(move || {
                let cri = Cri::connect(bed);
                let (number, script) = (code.to_string(), format!("exit {code}"));
                let response = cri.exec_sync(id, &target.either(&script, &["/exit.wasm", &number]), 30).expect("exec");
                assert_eq!(response.exit_code, code);
            });
        }
    });
    container.stop(5).expect("stop");
    container.expect(143);
}

fn ended_with_its_container(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-ended").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let (id, bed) = (container.id().to_owned(), cri.bed());
    let begun = Instant::now();
    thread::scope(|scope| {
        let exec = scope.spawn(|| {
            let long = target.either("exec sleep 100", &["/sleep.wasm", "100"]);
            Cri::connect(bed).exec_sync(&id, &long, 60)
        });
        thread::sleep(Duration::from_millis(500));
        container.stop(0).expect("stop");
        let ended = exec.join().expect("the thread");
        assert!(ended.is_ok_and(|response| response.exit_code == 137));
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    container.remove().expect("remove");
    bed.assert_gone(container.id());
}

/// The runtime's options, which name it, come with the container only.
fn by_the_engine_of_its_container(target: Target) {
    let cri = target.cri();
    let pod = cri.pod("lighter-wamr", "exec-wamr").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    assert_eq!(exec(&container, &["/exit.wasm", "7"]).0, 7);
    let refused = container.exec_sync(&["/net.wasm"], 10).expect_err("a component on WAMR");
    assert!(refused.message().contains("wamr"), "{refused}");
    container.stop(5).expect("stop");
    container.expect(143);
}

/// A program in a guest's container, and a guest in a program's.
fn of_the_other_kind(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "exec-other").run();
    let busybox = std::fs::read(cri.bed().path("/bin/busybox")).expect("busybox of the bed");
    let both = wasm().renamed("both-kinds").file("/bin/busybox", busybox);
    let container = pod.container("c", &both);
    let container = match target.kind {
        Kind::Wasm => container.command(&["/sleep.wasm"]),
        Kind::Runc | Kind::Native => container.command(&["/bin/busybox", "sh", "-c", "echo ready; exec sleep 1000"]),
    };
    let container = container.start();
    container.wait_for("ready");
    assert_eq!(exec(&container, &["/hello.wasm"]).1, "hello from wasm\n");
    let program = ["/bin/busybox", "echo", "hello"];
    if target.is_wasm() {
        // It would be behind no seal, in a container that has been judged by its guest's.
        let refused = container.exec_sync(&program, 10).expect_err("a program in a guest's container");
        assert!(refused.message().contains("native programs have no place in it"), "{refused}");
    } else {
        assert_eq!(exec(&container, &program).1, "hello\n");
    }
}
