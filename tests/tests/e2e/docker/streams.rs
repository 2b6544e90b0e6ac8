//! What containers read and print, while they run: `logs -f`, `attach`, `start -ai`, signals through the client.

use lighter_tests::{Bed, Cmd, Suite};

use crate::container::Container;

use super::kind::{Kind, Program, on_every_kind};

on_every_kind! {
    followed_logs,
    attached_to_input,
    several_attached,
    created_then_started,
    signals_pass_through_the_client,
    attached_from_the_start,
}

/// `docker create --interactive`, of what copies its input.
#[track_caller]
fn create_cat<'bed>(bed: &'bed Bed, kind: Kind, name: &str) -> Container<'bed> {
    let container = kind.container(bed, name);
    let create = ["create", "--interactive", "--name", &container.name];
    bed.docker(&[&create, kind.flags(), &[kind.image(bed)], &kind.words(Program::Cat)].concat()).run().ok();
    container
}

fn attach(container: &Container<'_>, flags: &[&str]) -> Cmd {
    container.bed.docker(&[&["attach"], flags, &[&container.name]].concat())
}

/// Line by line as they come, up to the container's end.
fn followed_logs(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = create_cat(bed, kind, "followed");
    let mut client = bed.docker(&["start", "--attach", "--interactive", &container.name]).spawn();
    client.write("first\n");
    client.wait_for("first\n");
    let logs = bed.docker(&["logs", "--follow", &container.name]).spawn();
    logs.wait_for("first\n");
    client.write("second\n");
    logs.wait_for("second\n");
    let last = bed.docker(&["logs", "--follow", "--tail", "1", &container.name]).spawn();
    last.wait_for("second\n");
    client.write("third\n");
    client.wait().ok();
    assert_eq!(logs.wait().ok().stdout, "first\nsecond\nthird\n");
    assert_eq!(last.wait().ok().stdout, "second\nthird\n");
}

fn attached_to_input(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = create_cat(bed, kind, "attached");
    container.docker("start", &[]).ok();
    let mut client = attach(&container, &[]).spawn();
    client.write("to a running one\n");
    client.wait_for("to a running one\n");
    // Who attached ends, and with it the input.
    client.wait().ok();
    assert_eq!(container.docker("wait", &[]).ok().stdout, "0\n");
    assert_eq!(container.docker("logs", &[]).ok().stdout, "to a running one\n");
}

fn several_attached(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = create_cat(bed, kind, "several");
    container.docker("start", &[]).ok();
    let readers: Vec<_> = (0..3).map(|_| attach(&container, &["--no-stdin"]).spawn()).collect();
    let mut writer = attach(&container, &[]).spawn();
    // A reader may not have arrived yet: it sees what comes later.
    for (number, reader) in readers.iter().enumerate() {
        for attempt in 0.. {
            writer.write(format!("{number} {attempt}\n"));
            writer.wait_for(&format!("{number} {attempt}\n"));
            std::thread::sleep(std::time::Duration::from_millis(100));
            if reader.stdout().contains(&format!("{number} ")) {
                break;
            }
            assert!(attempt < 100, "a reader sees nothing");
        }
    }
    writer.write("to all\n");
    for reader in &readers {
        reader.wait_for("to all\n");
    }
    writer.wait().ok();
    for reader in readers {
        reader.wait().ok();
    }
}

fn created_then_started(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = create_cat(bed, kind, "created");
    for round in ["once", "and again"] {
        let start = bed.docker(&["start", "--attach", "--interactive", &container.name]);
        assert_eq!(start.stdin(round).run().ok().stdout, round);
    }
}

/// SIGTERM and SIGINT to `docker run` are the container's.
fn signals_pass_through_the_client(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let container = kind.container(bed, &format!("signal-{signal}").to_lowercase());
        let words = ["run", "--name", &container.name];
        let words = [&words, kind.flags(), &[kind.image(bed)], &kind.words(Program::Stay)].concat();
        let mut script = vec!["sh", "-c", r#"echo pid $$; exec docker "$@""#, "sh"];
        script.extend(words);
        let client = bed.cmd(&script).spawn();
        client.wait_for("ready\n");
        let stdout = client.stdout();
        let pid = stdout.lines().find_map(|line| line.strip_prefix("pid ")).expect("a pid");
        bed.cmd(&["kill", "-s", signal, pid]).run().ok();
        client.wait().expect(status);
        assert_eq!(container.inspect("{{.State.ExitCode}}"), status.to_string());
    }
}

/// Nothing of a short output is lost.
fn attached_from_the_start(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = kind.container(bed, "attached-from-start");
    let create = ["create", "--name", &container.name];
    bed.docker(&[&create, kind.flags(), &[kind.image(bed)], &kind.words(Program::Hello)].concat()).run().ok();
    for round in 1..=5 {
        let output = container.docker("start", &["--attach"]).ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello from wasm\n", "and to stderr\n"));
        assert_eq!(container.docker("logs", &[]).ok().stdout, "hello from wasm\n".repeat(round));
    }
}
