//! The log that the kubelet reads, and standard input.

use std::fs;

use lighter_tests::cri::{Line, Tag};

use crate::target::{Kind, Target, guest, sh, targets};

targets! {
    both_streams: Runc Native Wasm;
    long_lines: Runc Native Wasm;
    opened_again: Runc Native Wasm;
    standard_input: Runc Native Wasm;
}

fn both_streams(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "log").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/hello.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "echo hello from wasm; echo and to stderr >&2"),
    };
    let container = container.start();
    container.expect(0);
    let log = container.log();
    let seen = |stream: &str| {
        let lines: Vec<&Line> = log.iter().filter(|line| line.stream == stream).collect();
        assert!(lines.iter().all(|line| line.tag == Tag::Full), "{log:?}");
        lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen("stdout"), ["hello from wasm"]);
    assert_eq!(seen("stderr"), ["and to stderr"]);
    assert_eq!(
        container.status().log_path,
        container.log_path().to_string_lossy()
            [container.log_path().to_string_lossy().find("/var/log").expect("a log in the bed")..]
    );
}

fn long_lines(target: Target) {
    const LENGTH: usize = 100_000;
    let cri = target.cri();
    let pod = target.pod(&cri, "long").run();
    let container = match target.kind {
        // An argument of that length, shown as a line.
        Kind::Wasm => guest(&pod, "c", &["/show.wasm"]).args(&[&"x".repeat(LENGTH)]),
        Kind::Runc | Kind::Native => {
            sh(&pod, "c", &format!("echo \"arg[1]=$(head -c {LENGTH} /dev/zero | tr '\\0' x)\""))
        }
    };
    let container = container.start();
    let text = container.expect(0);
    let expected = format!("arg[1]={}", "x".repeat(LENGTH));
    assert!(text.lines().any(|line| line == expected), "{text:.200}");
    assert!(container.log().iter().any(|line| line.tag == Tag::Partial));
}

fn opened_again(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "rotated").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/cat.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "cat"),
    };
    let container = container.with(|config| config.stdin = true).start();
    let mut attached = container.attach(true, false);
    attached.write("before\n");
    container.wait_for("before");
    let rotated = container.log_path().with_extension("old");
    fs::rename(container.log_path(), &rotated).expect("rotate");
    container.reopen_log().expect("open it again");
    attached.write("after\n");
    container.wait_for("after");
    assert!(!container.text().contains("before"));
    let old = fs::read_to_string(rotated).expect("the old log");
    assert!(old.contains("before") && !old.contains("after"), "{old}");
    container.stop(0).expect("stop");
    container.reopen_log().expect_err("a stopped container's log stays closed");
}

fn standard_input(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "stdin").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/cat.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "cat; echo EOF >&2"),
    };
    let container = container.with(|config| (config.stdin, config.stdin_once) = (true, true)).start();
    let mut attached = container.attach(true, false);
    attached.write("to the guest\n");
    attached.wait_for("to the guest");
    // The first to attach is the last: its going is the end of the file.
    drop(attached);
    container.expect(0);
    container.wait_for("EOF");
    // Without a stdin there is nothing to read.
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "none", &["/cat.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "none", "cat; echo EOF >&2"),
    };
    let container = container.start();
    container.expect(0);
    container.wait_for("EOF");
}
