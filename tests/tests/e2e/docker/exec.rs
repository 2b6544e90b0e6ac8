//! `docker exec`: another program of the image, in a container that runs.

use std::{
    thread,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Suite};

use super::{
    kind::{Kind, Program, on_every_kind},
    life::wait_until,
};

on_every_kind! {
    output_and_exit_codes,
    what_is_not_there,
    input,
    environment_and_folder,
    user,
    the_same_files,
    many_at_once,
    detached,
    no_longer_running,
    ends_with_the_container,
    clients_that_go_away,
}

fn output_and_exit_codes(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec", &[]);
    for _ in 0..3 {
        let hello = container.executed(&[], Program::Hello).ok();
        assert_eq!((hello.stdout.as_str(), hello.stderr.as_str()), ("hello from wasm\n", "and to stderr\n"));
    }
    for (code, status) in [("0", 0), ("1", 1), ("42", 42), ("125", 125)] {
        container.executed(&[], Program::Exit(code)).expect(status);
    }
    // Of all that nothing is in the container's own log, and it goes on.
    assert_eq!(container.docker("logs", &[]).ok().stdout, "ready\n");
    assert_eq!(container.inspect("{{.State.Status}} {{.ExecIDs}}"), "running []");
}

/// Docker makes an exit code of what it finds in the message; which one has changed between its versions.
fn what_is_not_there(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-nothing", &[]);
    let measure = Kind::Runc.ready(bed, &kind.name("exec-nothing-for"), &[]);
    for program in ["/bin/nope", "nope", "/data"] {
        let exec = |name: &str| bed.docker(&["exec", name, program]).run();
        let refused = exec(&container.name).expect(exec(&measure.name).status);
        assert!(refused.stderr.contains(program) || refused.stdout.contains(program), "{refused}");
    }
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    container.executed(&[], Program::Hello).ok();
}

fn input(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-input", &[]);
    let large = "some input\n".repeat(20_000);
    let cat = container.exec(&["--interactive"], Program::Cat).stdin(large.clone()).run().ok();
    assert!(cat.stdout == large, "{cat:.400}");
    let mut cat = container.exec(&["--interactive"], Program::Cat).spawn();
    for line in ["first\n", "second\n"] {
        cat.write(line);
        cat.wait_for(line);
    }
    cat.wait().ok();
    // Without the flag there is nothing to read.
    assert_eq!(container.executed(&[], Program::Cat).ok().stdout, "");
}

fn environment_and_folder(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-environment", &["--env", "SHAPE=round", "--workdir", "/tmp"]);
    // WASI 0.1 has no working folder to ask for: guests are told of it by the environment, and see it in relative paths.
    let folder = if kind == Kind::Guest { "env PWD=" } else { "cwd=" };
    let own = container.executed(&[], Program::Show).ok().stdout;
    for line in ["env COLOUR=green\n", "env SHAPE=round\n", &format!("{folder}/tmp\n")] {
        assert!(own.contains(line), "{line:?} in {own}");
    }
    let flags = ["--env", "COLOUR=blue", "--env", "SIZE=a = b", "--workdir", "/data"];
    let other = container.executed(&flags, Program::Show).ok().stdout;
    for line in ["env COLOUR=blue\n", "env SHAPE=round\n", "env SIZE=a = b\n", &format!("{folder}/data\n")] {
        assert!(other.contains(line), "{line:?} in {other}");
    }
    assert!(!other.contains("green"), "{other}");
    assert_eq!(container.executed(&flags, Program::Read("note")).ok().stdout.trim(), "of the image");
}

fn user(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let folder = format!("/srv/exec-user-{}", kind.slug());
    bed.sh(&format!("install -d -m 777 {folder}")).run().ok();
    let container = kind.ready(bed, "exec-user", &["--volume", &format!("{folder}:/srv")]);
    container.executed(&["--user", "1234:4321"], Program::Write("/srv/of-user", "x")).ok();
    assert_eq!(bed.sh(&format!("stat -c %u:%g {folder}/of-user")).run().ok().stdout, "1234:4321\n");
    container.executed(&["--user", "1234:4321"], Program::Write("/data/note", "x")).expect(1);
    container.executed(&[], Program::Write("/data/note", "x")).ok();
}

fn the_same_files(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    bed.sh("mkdir -p /srv/exec-files; echo of the volume >/srv/exec-files/file").run().ok();
    let volume = ["--volume", "/srv/exec-files:/srv:ro", "--tmpfs", "/scratch", "--read-only"];
    let container = kind.ready(bed, "exec-files", &volume);
    let read = |path| container.executed(&[], Program::Read(path));
    assert_eq!(read("/data/note").ok().stdout.trim(), "of the image");
    assert_eq!(read("/srv/file").ok().stdout.trim(), "of the volume");
    container.executed(&[], Program::Write("/srv/new", "x")).expect(1);
    container.executed(&[], Program::Write("/new", "x")).expect(1);
    container.executed(&[], Program::Write("/scratch/new", "seen by all")).ok();
    assert_eq!(read("/scratch/new").ok().stdout.trim(), "seen by all");
}

fn many_at_once(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-many", &[]);
    let mut cats: Vec<_> = (0..8).map(|_| container.exec(&["--interactive"], Program::Cat).spawn()).collect();
    for (number, cat) in cats.iter_mut().enumerate() {
        cat.write(format!("to {number}\n"));
    }
    for (number, cat) in cats.iter().enumerate() {
        cat.wait_for(&format!("to {number}\n"));
    }
    let running = container.inspect("{{len .ExecIDs}}");
    for (number, cat) in cats.into_iter().enumerate() {
        assert_eq!(cat.wait().ok().stdout, format!("to {number}\n"));
    }
    assert_eq!(running, "8");
    wait_until(&container, "{{len .ExecIDs}}", "0");
}

fn detached(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-detached", &[]);
    assert_eq!(container.executed(&["--detach"], Program::Write("/data/new", "done by then")).ok().stdout, "");
    let deadline = Instant::now() + Duration::from_secs(20);
    while container.executed(&[], Program::Read("/data/new")).stdout.trim() != "done by then" {
        assert!(Instant::now() < deadline, "the detached command has not written");
    }
}

fn no_longer_running(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-stopped", &[]);
    container.docker("stop", &[]).ok();
    let refused = container.executed(&[], Program::Hello).expect(1);
    assert!(refused.stderr.contains("is not running"), "{refused}");
}

fn ends_with_the_container(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-ends", &[]);
    let id = container.inspect("{{.Id}}");
    let staying = container.exec(&[], Program::Stay).spawn();
    staying.wait_for("ready\n");
    container.docker("stop", &[]).ok();
    staying.wait().expect(137);
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "143");
    container.docker("rm", &[]).ok();
    bed.assert_gone(&id);
}

/// What was begun goes on without its client, as Docker has it, and the container is none the worse.
fn clients_that_go_away(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "exec-deserted", &[]);
    let staying = container.exec(&["--interactive"], Program::Stay).spawn();
    staying.wait_for("ready\n");
    drop(staying);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(container.inspect("{{len .ExecIDs}}"), "1");
    container.executed(&[], Program::Hello).ok();
    container.docker("stop", &[]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "143");
}
