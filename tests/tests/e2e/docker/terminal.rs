//! `-t`: containers and commands at a terminal, and `docker attach`.

use std::{
    thread,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Suite};

use crate::container::Container;

use super::kind::{Kind, Program, on_every_kind};

on_every_kind! {
    typed_into_a_container,
    interrupted,
    as_large_as_the_window,
    detached_and_attached_again,
    without_a_client,
    typed_into_a_command,
    interrupted_command,
    command_as_large_as_the_window,
}

/// Docker's keys to leave a container: Ctrl-P, Ctrl-Q.
const DETACH: &str = "\x10\x11";

const INTERRUPT: &str = "\x03";
const END_OF_FILE: &str = "\x04";

/// Waits until the terminal of this process in the bed has this size, as `stty` tells it.
#[track_caller]
fn wait_for_size(bed: &Bed, pid: &str, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let size = bed.sh(&format!("stty size </proc/{pid}/fd/0")).run().stdout;
        if size.trim() == expected {
            return;
        }
        assert!(Instant::now() < deadline, "the terminal is {size:?}, not {expected:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The processes of the container, as the bed sees them.
#[track_caller]
fn pids(container: &Container<'_>) -> Vec<String> {
    let top = container.bed.docker(&["top", &container.name, "-eo", "pid"]).run();
    top.ok().stdout.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

/// The terminal echoes, and makes each line's end CR LF.
fn typed_into_a_container(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.container(bed, "typed");
    let run = kind.run(bed, &container.name, &["--interactive", "--tty"], Program::Cat);
    let mut terminal = run.at_terminal(24, 80);
    terminal.wait_until_raw();
    for line in ["first", "second"] {
        terminal.type_keys(&format!("{line}\r"));
        terminal.wait_for(&format!("{line}\r\n{line}\r\n"));
    }
    terminal.type_keys(END_OF_FILE);
    let output = terminal.wait().ok();
    assert!(output.stdout.contains("first\r\nfirst\r\nsecond\r\nsecond\r\n"), "{output}");
    let logs = container.docker("logs", &[]).ok();
    assert!(logs.stdout.starts_with("first\r\nfirst\r\n") && logs.stderr.is_empty(), "{logs}");
}

fn interrupted(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    for program in [Program::Stay, Program::Busy] {
        let container = kind.container(bed, "interrupted");
        let run = kind.run(bed, &container.name, &["--interactive", "--tty"], program);
        let mut terminal = run.at_terminal(24, 80);
        terminal.wait_for("ready\r\n");
        terminal.type_keys(INTERRUPT);
        terminal.wait().expect(130);
        assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 130");
    }
}

fn as_large_as_the_window(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.container(bed, "as-large");
    let run = kind.run(bed, &container.name, &["--interactive", "--tty"], Program::Cat);
    let mut terminal = run.at_terminal(33, 101);
    terminal.wait_until_raw();
    terminal.type_keys("here\r");
    terminal.wait_for("here\r\nhere\r\n");
    let pid = container.inspect("{{.State.Pid}}");
    wait_for_size(bed, &pid, "33 101");
    terminal.resize(50, 132);
    wait_for_size(bed, &pid, "50 132");
    terminal.type_keys(END_OF_FILE);
    terminal.wait().ok();
}

fn detached_and_attached_again(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.container(bed, "detach-keys");
    let run = kind.run(bed, &container.name, &["--interactive", "--tty"], Program::Cat);
    let mut terminal = run.at_terminal(24, 80);
    terminal.wait_until_raw();
    terminal.type_keys("before\r");
    terminal.wait_for("before\r\nbefore\r\n");
    terminal.type_keys(DETACH);
    terminal.wait().ok();
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    let mut terminal = bed.docker(&["attach", &container.name]).at_terminal(24, 80);
    terminal.wait_until_raw();
    terminal.type_keys("after\r");
    terminal.wait_for("after\r\nafter\r\n");
    terminal.type_keys(END_OF_FILE);
    terminal.wait().ok();
    assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
}

/// `-dt`: somebody comes later, or nobody.
fn without_a_client(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.detach(bed, "tty-detached", &["--tty"], Program::Stay);
    container.wait_for_log("ready\r\n");
    container.docker("stop", &[]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "143");
}

fn typed_into_a_command(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-typed", &[]);
    let mut terminal = container.exec(&["--interactive", "--tty"], Program::Cat).at_terminal(24, 80);
    terminal.wait_until_raw();
    terminal.type_keys("a line\r");
    terminal.wait_for("a line\r\na line\r\n");
    terminal.type_keys(END_OF_FILE);
    terminal.wait().ok();
    // Each has a terminal of its own.
    let mut terminals: Vec<_> =
        (0..3).map(|_| container.exec(&["--interactive", "--tty"], Program::Cat).at_terminal(24, 80)).collect();
    for (number, terminal) in terminals.iter_mut().enumerate() {
        terminal.wait_until_raw();
        terminal.type_keys(&format!("to {number}\r"));
        terminal.wait_for(&format!("to {number}\r\nto {number}\r\n"));
        terminal.type_keys(END_OF_FILE);
    }
    for terminal in terminals {
        terminal.wait().ok();
    }
}

fn interrupted_command(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-interrupted", &[]);
    for program in [Program::Stay, Program::Busy] {
        let mut terminal = container.exec(&["--interactive", "--tty"], program).at_terminal(24, 80);
        terminal.wait_for("ready\r\n");
        terminal.type_keys(INTERRUPT);
        terminal.wait().expect(130);
    }
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
}

fn command_as_large_as_the_window(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-as-large", &[]);
    // For native containers this is a shell and, from time to time, a `sleep`.
    let own = container.inspect("{{.State.Pid}}");
    let mut terminal = container.exec(&["--interactive", "--tty"], Program::Cat).at_terminal(33, 101);
    terminal.wait_until_raw();
    terminal.type_keys("here\r");
    terminal.wait_for("here\r\nhere\r\n");
    let has_terminal =
        |pid: &String| *pid != own && bed.sh(&format!("readlink /proc/{pid}/fd/0")).run().stdout.contains("/pts/");
    let pid = pids(&container).into_iter().find(has_terminal).expect("a process at a terminal");
    wait_for_size(bed, &pid, "33 101");
    terminal.resize(50, 132);
    wait_for_size(bed, &pid, "50 132");
    terminal.type_keys(END_OF_FILE);
    terminal.wait().ok();
}
