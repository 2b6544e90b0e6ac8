//! Exec, attach and port-forward as streams: what `kubectl exec -it`, `attach` and `port-forward` do.

use crate::target::{Kind, Target, guest, sh, targets};

targets! {
    exec: Runc Native Wasm;
    exec_with_stdin: Runc Native Wasm;
    exec_with_a_terminal: Runc Native;
    exec_of_a_guest_with_a_terminal: Wasm;
    attach: Runc Native Wasm;
    attach_to_a_terminal: Runc Native Wasm;
    a_terminals_size: Runc Native;
    port_forward: Runc Native Wasm;
    port_forward_to_nobody: Runc Native Wasm;
}

fn exec(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "stream").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let mut hello = match target.kind {
        Kind::Wasm => container.exec(&["/hello.wasm"], false, false),
        Kind::Runc | Kind::Native => {
            container.exec(&["sh", "-c", "echo hello from wasm; echo and to stderr >&2"], false, false)
        }
    };
    assert_eq!(hello.wait(), 0);
    assert_eq!((hello.stdout().as_str(), hello.stderr().as_str()), ("hello from wasm\n", "and to stderr\n"));
    let mut exit = match target.kind {
        Kind::Wasm => container.exec(&["/exit.wasm", "42"], false, false),
        Kind::Runc | Kind::Native => container.exec(&["sh", "-c", "exit 42"], false, false),
    };
    assert_eq!(exit.wait(), 42);
}

fn exec_with_stdin(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "stream-stdin").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let mut cat = container.exec(if target.is_wasm() { &["/cat.wasm"] } else { &["cat"] }, true, false);
    for line in ["first\n", "second\n"] {
        cat.write(line);
        cat.wait_for(line);
    }
    // Who goes away closes its stdin.
    drop(cat);
    let processes = format!("find /sys/fs/cgroup -path '*{}/cgroup.procs' -exec cat {{}} + | sort -u", container.id());
    let names = format!("for pid in $({processes}); do tr '\\0' ' ' </proc/$pid/cmdline; echo; done");
    container.eventually("end of cat", || (!cri.bed().sh(&names).run().stdout.contains("cat")).then_some(()));
    container.stop(5).expect("stop");
    container.expect(143);
}

fn exec_with_a_terminal(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "terminal").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let mut shell = container.exec(&["sh"], true, true);
    shell.resize(100, 40);
    shell.write("test -t 0 && test -t 1 && echo a term''inal\n");
    shell.wait_for("a terminal");
    shell.write("while test \"$(stty size)\" != '40 100'; do sleep 0.05; done; echo resi''zed\n");
    shell.wait_for("resized");
    // ^C is the foreground's, not the shell's.
    shell.write("sh -c 'trap \"exit 9\" INT; echo beg\"\"un; while :; do sleep 0.05; done'\n");
    shell.wait_for("begun");
    shell.write("\x03");
    shell.write("echo st''ill here\n");
    shell.wait_for("still here");
    shell.write("exit 7\n");
    assert_eq!(shell.wait(), 7);
}

fn exec_of_a_guest_with_a_terminal(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "terminal").run();
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let mut cat = container.exec(&["/cat.wasm"], true, true);
    // Echoed by the terminal, and then by the guest; lines end as terminals end them.
    cat.write("a line\n");
    cat.wait_for("a line\r\na line\r\n");
    cat.write("\x04");
    assert_eq!(cat.wait(), 0);
    assert!(cat.stdout().ends_with("EOF 7\r\n"), "{:?}", cat.stdout());
    // ^C ends the guest, as it ends any program.
    let mut sleep = container.exec(&["/sleep.wasm"], true, true);
    sleep.wait_for("ready");
    sleep.write("\x03");
    assert_eq!(sleep.wait(), 130);
    container.stop(5).expect("stop");
    container.expect(143);
}

fn attach(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "attach").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/cat.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "cat"),
    };
    let container = container.with(|config| config.stdin = true).start();
    let mut first = container.attach(true, false);
    first.write("to both\n");
    first.wait_for("to both");
    drop(first);
    // Another may follow, for stdin is not for once.
    let mut second = container.attach(true, false);
    second.write("again\n");
    second.wait_for("again");
    container.wait_for("to both\nagain\n");
    container.stop(0).expect("stop");
    container.expect(137);
}

fn attach_to_a_terminal(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "attach-tty").run();
    let container = match target.kind {
        Kind::Wasm => guest(&pod, "c", &["/cat.wasm"]),
        Kind::Runc | Kind::Native => sh(&pod, "c", "cat; echo EOF"),
    };
    let container = container.with(|config| (config.stdin, config.tty) = (true, true)).start();
    let mut terminal = container.attach(true, true);
    terminal.write("a line\n");
    terminal.wait_for("a line\r\na line\r\n");
    terminal.write("\x04");
    container.expect(0);
    container.wait_for("EOF");
}

fn a_terminals_size(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "attach-size").run();
    let script = "while test \"$(stty size)\" != '40 100'; do sleep 0.05; done; echo resized";
    let container = sh(&pod, "c", script).with(|config| (config.stdin, config.tty) = (true, true)).start();
    let mut terminal = container.attach(true, true);
    terminal.resize(100, 40);
    terminal.wait_for("resized");
    container.expect(0);
}

fn port_forward(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "forward").run();
    let server = match target.kind {
        Kind::Wasm => guest(&pod, "server", &["/serve.wasm"]),
        Kind::Runc | Kind::Native => {
            sh(&pod, "server", "mkdir /www; echo hello >/www/index.html; httpd -p 127.0.0.1:8080 -h /www; sleep 1000")
        }
    };
    let server = server.start();
    // It may not listen yet.
    server.eventually("an answer", || {
        let mut forward = pod.forward(8080);
        forward.write("GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        forward.receives("hello").then_some(())
    });
}

fn port_forward_to_nobody(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "nobody").run();
    let why = pod.forward(8081).fails();
    assert!(why.contains("refused"), "{why}");
    assert!(pod.is_ready());
}
