//! `HEALTHCHECK`: a program of the image that Docker runs in the container, time and again.

use lighter_tests::{Bed, Suite};

use super::{
    kind::{Kind, Program, on_every_kind},
    life::wait_until,
};

on_every_kind! {
    healthy_and_not,
    too_slow,
}

const STATUS: &str = "{{.State.Health.Status}}";

/// Builds an image that checks its health by `program`, and runs it.
#[track_caller]
fn checked<'bed>(
    bed: &'bed Bed,
    kind: Kind,
    name: &str,
    timing: &str,
    program: Program,
) -> crate::container::Container<'bed> {
    let image = format!("{name}-{}:latest", kind.slug());
    let json = |words: Vec<&str>| serde_json::to_string(&words).expect("words as JSON");
    let (check, stay) = (json(kind.words(program)), json(kind.words(Program::Stay)));
    let dockerfile = format!("FROM {}\nHEALTHCHECK {timing} CMD {check}\nCMD {stay}\n", kind.image(bed));
    let platform: &[&str] = if kind == Kind::Guest { &["--platform", lighter_tests::PLATFORM] } else { &[] };
    let build = [&["build", "--quiet", "--tag", &image], platform, &["-"]].concat();
    bed.docker(&build).stdin(dockerfile).run().ok();
    let container = kind.container(bed, name);
    let run = ["run", "--detach", "--name", &container.name];
    bed.docker(&[&run, kind.flags(), &[&image]].concat()).run().ok();
    container
}

fn healthy_and_not(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let timing = "--interval=500ms --timeout=10s --retries=2";
    let container = checked(bed, kind, "health", timing, Program::Read("/data/well"));
    wait_until(&container, STATUS, "unhealthy");
    let log = container.inspect("{{range .State.Health.Log}}{{.ExitCode}} {{end}}");
    assert!(log.split(' ').all(|code| code == "1"), "{log}");
    bed.sh(&format!("echo quite well >/tmp/{0} && docker cp /tmp/{0} {0}:/data/well", container.name)).run().ok();
    wait_until(&container, STATUS, "healthy");
    let log = container.inspect("{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}");
    assert!(log.contains("0 quite well"), "{log}");
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
}

/// A check that doesn't end is killed, and has failed.
fn too_slow(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let container = checked(bed, kind, "slow-health", "--interval=500ms --timeout=1s --retries=1", Program::Busy);
    wait_until(&container, STATUS, "unhealthy");
    let log = container.inspect("{{(index .State.Health.Log 0).Output}}");
    assert!(log.contains("exceeded timeout"), "{log}");
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
    container.docker("stop", &[]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "143");
}
