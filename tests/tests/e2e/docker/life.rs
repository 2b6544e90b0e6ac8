//! A container's life in Docker's words: from `run` to `rm`, with what lies between.

use std::{
    thread,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Suite, vm};

use super::kind::{Kind, Program, on_every_kind};

on_every_kind! {
    run_leaves_nothing,
    detached_and_removed_at_its_end,
    restart,
    on_failure,
    pause,
    paused_and_removed,
    rename,
    stopped_by_its_own_signal,
    wait_of_each_exit_code,
    copy_in_and_out,
    diff_and_commit,
}

/// Far above what any of these takes, far below a test's patience.
const SOON: Duration = Duration::from_secs(20);

/// Waits until `docker inspect` says this.
#[track_caller]
pub(crate) fn wait_until(container: &crate::container::Container<'_>, template: &str, expected: &str) {
    let deadline = Instant::now() + vm::patience(SOON);
    loop {
        let seen = container.inspect(template);
        if seen == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{template} of {} is {seen:?}, not {expected:?}", container.name);
        thread::sleep(Duration::from_millis(50));
    }
}

/// The container's id, which `docker run --cidfile` writes.
#[track_caller]
fn id(bed: &Bed, name: &str) -> (String, impl Fn() -> String) {
    let path = format!("/run/bed/{name}.cid");
    let read = bed.path(&path);
    (path, move || std::fs::read_to_string(&read).expect("the file with the id"))
}

fn run_leaves_nothing(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let name = kind.name("leaves-nothing");
    let (file, id) = id(bed, &name);
    let run = kind.run(bed, &name, &["--rm", "--cidfile", &file], Program::Hello).run().ok();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("hello from wasm\n", "and to stderr\n"));
    bed.assert_gone(&id());
    let listed = bed.docker(&["ps", "--all", "--quiet", "--filter", &format!("name={name}")]).run().ok();
    assert_eq!(listed.stdout, "");
}

fn detached_and_removed_at_its_end(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "detached-rm", &["--rm"]);
    let id = container.inspect("{{.Id}}");
    container.docker("stop", &[]).ok();
    bed.assert_gone(&id);
    let deadline = Instant::now() + vm::patience(SOON);
    let listed = || bed.docker(&["ps", "--all", "--quiet", "--no-trunc"]).run().ok().stdout;
    while listed().contains(&id) {
        assert!(Instant::now() < deadline, "{} is still there", container.name);
    }
}

fn restart(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "restarted", &[]);
    let first = container.inspect("{{.State.Pid}} {{.State.StartedAt}}");
    for command in ["restart", "start"] {
        if command == "start" {
            container.docker("stop", &[]).ok();
            assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 143");
        }
        container.docker(command, &[]).ok();
        assert_eq!(container.inspect("{{.State.Status}}"), "running");
        assert_ne!(container.inspect("{{.State.Pid}} {{.State.StartedAt}}"), first);
    }
    container.wait_for_log("ready\nready\nready\n");
}

/// As often as was asked for, and only where it failed.
fn on_failure(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let failing = kind.detach(bed, "on-failure", &["--restart", "on-failure:3"], Program::Exit("7"));
    wait_until(&failing, "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 3 7");
    let well = kind.detach(bed, "on-no-failure", &["--restart", "on-failure:3"], Program::Exit("0"));
    wait_until(&well, "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "exited 0 0");
}

/// What it was about to do waits, and is done then.
fn pause(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.container(bed, "paused");
    let mut client = kind.run(bed, &container.name, &["--interactive"], Program::Cat).spawn();
    client.write("before\n");
    client.wait_for("before\n");
    container.docker("pause", &[]).ok();
    assert_eq!(container.inspect("{{.State.Status}} {{.State.Paused}}"), "paused true");
    client.write("meanwhile\n");
    let refused = bed.docker(&[&["exec", &container.name], &kind.words(Program::Hello)[..]].concat()).run();
    assert!(refused.status != 0 && refused.stderr.contains("is paused"), "{refused}");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(client.stdout(), "before\n");
    container.docker("unpause", &[]).ok();
    client.wait_for("meanwhile\n");
    assert_eq!(container.inspect("{{.State.Status}} {{.State.Paused}}"), "running false");
    client.wait().ok();
}

fn paused_and_removed(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "paused-and-removed", &[]);
    let id = container.inspect("{{.Id}}");
    container.docker("pause", &[]).ok();
    container.docker("rm", &["--force"]).ok();
    bed.assert_gone(&id);
}

fn rename(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let old = kind.ready(bed, "old-name", &[]);
    let new = kind.container(bed, "new-name");
    bed.docker(&["rename", &old.name, &new.name]).run().ok();
    assert_eq!(new.inspect("{{.State.Status}}"), "running");
    assert_eq!(new.docker("logs", &[]).ok().stdout, "ready\n");
    old.docker("inspect", &[]).expect(1);
    new.docker("stop", &[]).ok();
    assert_eq!(new.inspect("{{.State.ExitCode}}"), "143");
}

fn stopped_by_its_own_signal(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.ready(bed, "own-signal", &["--stop-signal", "INT"]);
    container.docker("stop", &[]).ok();
    assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 130");
}

fn wait_of_each_exit_code(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    // Wasmtime takes those of guests from 126 on for a mistake, and traps.
    for code in ["0", "1", "42", "125"] {
        let container = kind.detach(bed, &format!("wait-{code}"), &[], Program::Exit(code));
        assert_eq!(container.docker("wait", &[]).ok().stdout.trim(), code);
    }
}

/// Before it starts, while it runs and after its end.
fn copy_in_and_out(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let (container, folder) = (kind.container(bed, "copied"), format!("/tmp/copied-{}", kind.slug()));
    bed.sh(&format!("mkdir -p {folder}/in; echo from outside >{folder}/in/file")).run().ok();
    let reads = kind.words(Program::Read("/data/in/file"));
    let create = ["create", "--name", &container.name];
    bed.docker(&[&create, kind.flags(), &[kind.image(bed)], &reads].concat()).run().ok();
    let copy = |from: &str, to: &str| bed.docker(&["cp", from, to]).run().ok();
    copy(&format!("{folder}/in"), &format!("{}:/data", container.name));
    let started = container.docker("start", &["--attach"]).ok();
    assert!(started.stdout.starts_with("from outside\n"), "{started}");
    copy(&format!("{}:/data", container.name), &format!("{folder}/out"));
    assert_eq!(
        bed.sh(&format!("cat {folder}/out/note {folder}/out/in/file")).run().ok().stdout,
        "of the imagefrom outside\n"
    );

    let running = kind.ready(bed, "copied-running", &[]);
    copy(&format!("{folder}/in/file"), &format!("{}:/data/new", running.name));
    copy(&format!("{}:/data/new", running.name), &format!("{folder}/new"));
    assert_eq!(bed.sh(&format!("cat {folder}/new")).run().ok().stdout, "from outside\n");
}

fn diff_and_commit(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let writer = kind.detach(bed, "committed", &[], Program::Write("/data/new", "kept"));
    assert_eq!(writer.docker("wait", &[]).ok().stdout, "0\n");
    let diff = writer.docker("diff", &[]).ok().stdout;
    assert!(diff.contains("C /data\n") && diff.contains("A /data/new\n"), "{diff}");
    let image = format!("committed-{}:latest", kind.slug());
    bed.docker(&["commit", &writer.name, &image]).run().ok();
    let of_commit = kind.container(bed, "of-commit");
    let run = ["run", "--rm", "--name", &of_commit.name];
    let run = [&run, kind.flags(), &[&image], &kind.words(Program::Read("/data/new"))].concat();
    assert_eq!(bed.docker(&run).run().ok().stdout.trim(), "kept");
}
