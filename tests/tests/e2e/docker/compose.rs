//! `docker compose`: a guest and a native program that talk to each other.

use lighter_tests::{Bed, Output, RUNTIME, Suite, free_port, on_every_suite};
use serde_json::Value;

use crate::cli::Lighter;

use super::{kind::Kind, network::handler};

on_every_suite! {
    services_that_talk,
    services_that_wait_for_health,
}

/// A project in a folder of its own; taken down when dropped.
struct Project<'bed> {
    folder: Lighter<'bed>,
    name: String,
}

impl<'bed> Project<'bed> {
    #[track_caller]
    fn new(bed: &'bed Bed, name: &str, file: &str) -> Self {
        bed.start_docker();
        let folder = Lighter::new(bed);
        folder.write("compose.yaml", file);
        Project { folder, name: name.to_owned() }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        self.folder.program(&[&["docker", "compose", "--project-name", &self.name], arguments].concat()).run()
    }

    /// The containers of the project, each as a document.
    #[track_caller]
    fn containers(&self) -> Vec<Value> {
        let listed = self.run(&["ps", "--all", "--format", "json"]).ok().stdout;
        listed.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        // The test may have done so.
        let words = ["docker", "compose", "--project-name", &self.name, "down", "--timeout", "1", "--volumes"];
        let _ = self.folder.program(&words).try_run();
    }
}

/// Up, looked at, taken down; nothing is left.
fn services_that_talk(suite: Suite) {
    let bed = Bed::get(suite);
    let (guest, native, port) = (handler(bed), Kind::Native.image(bed), free_port());
    let project = Project::new(
        bed,
        "talking",
        &format!(
            "
services:
  guest:
    image: {guest}
    platform: wasi/wasm
    runtime: {RUNTIME}
    environment:
      COLOUR: blue
    volumes:
      - ./shared:/shared:ro
    ports:
      - \"{port}:8080\"
  native:
    image: {native}
    runtime: {RUNTIME}
    command: httpd -f -p 8080 -h /data
  client:
    image: {native}
    runtime: {RUNTIME}
    command: [sh, -c, 'until wget -q -O - http://guest:8080/; do sleep 0.2; done']
    depends_on: [guest]
"
        ),
    );
    project.folder.write("shared/file", "of the folder");
    project.run(&["up", "--detach", "--pull", "never"]).ok();
    let fetch = |path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        bed.sh(&format!("for i in $(seq 50); do busybox wget -q -T 2 -O - '{url}' && exit; sleep 0.1; done; exit 1"))
    };
    assert_eq!(fetch("/").run().ok().stdout, "hello from wasi:http\n");
    assert!(fetch("/env").run().ok().stdout.contains("COLOUR=blue\n"));
    assert_eq!(fetch("/read?path=/shared/file").run().ok().stdout, "of the folder");
    // The guest asks the native one by the service's name, and the other way round.
    assert_eq!(fetch("/fetch?url=http://native:8080/note").run().ok().stdout, "of the image");
    let client = project.folder.program(&["docker", "wait", "talking-client-1"]).run().ok();
    assert_eq!(client.stdout, "0\n");
    assert!(project.run(&["logs", "--no-log-prefix", "client"]).ok().stdout.ends_with("hello from wasi:http\n"));
    fetch("/log").run().ok();
    let logs = project.run(&["logs", "guest"]).ok();
    assert!(logs.stdout.contains("logged to stdout"), "{logs}");

    let mut seen: Vec<_> =
        project.containers().iter().map(|one| (one["Service"].clone(), one["State"].clone())).collect();
    seen.sort_by_key(|(service, _)| service.to_string());
    let expected = [("client", "exited"), ("guest", "running"), ("native", "running")];
    assert_eq!(seen, expected.map(|(service, state)| (service.into(), state.into())));
    project.run(&["restart", "--timeout", "1", "guest"]).ok();
    assert_eq!(fetch("/").run().ok().stdout, "hello from wasi:http\n");

    let ids: Vec<_> = project.containers().iter().map(|one| one["ID"].as_str().expect("an id").to_owned()).collect();
    project.run(&["down", "--timeout", "1"]).ok();
    assert!(project.containers().is_empty());
    for id in ids {
        bed.assert_gone(&id);
    }
    let networks = bed.docker(&["network", "ls", "--quiet", "--filter", "name=talking"]).run().ok();
    assert_eq!(networks.stdout, "");
}

/// Who depends on a healthy service starts after a check has succeeded, and `exec` runs another program beside it.
fn services_that_wait_for_health(suite: Suite) {
    let bed = Bed::get(suite);
    let (guests, native) = (Kind::Guest.image(bed), Kind::Native.image(bed));
    let project = Project::new(
        bed,
        "waiting",
        &format!(
            "
services:
  guest:
    image: {guests}
    platform: wasi/wasm
    runtime: {RUNTIME}
    command: [/bin/stay.wasm]
    healthcheck:
      test: [CMD, /bin/files.wasm, read, /data/note]
      interval: 500ms
  native:
    image: {native}
    runtime: {RUNTIME}
    command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; done\"]
    healthcheck:
      test: test -s /data/note
      interval: 500ms
    depends_on:
      guest:
        condition: service_healthy
  last:
    image: {guests}
    platform: wasi/wasm
    runtime: {RUNTIME}
    command: [/bin/hello.wasm]
    depends_on:
      native:
        condition: service_healthy
"
        ),
    );
    project.run(&["up", "--detach", "--pull", "never"]).ok();
    assert_eq!(project.folder.program(&["docker", "wait", "waiting-last-1"]).run().ok().stdout, "0\n");
    let logs = project.run(&["logs", "--no-log-prefix", "last"]).ok();
    assert!(logs.stdout.contains("hello from wasm\n") && logs.stdout.contains("and to stderr\n"), "{logs}");
    let healthy = project.containers().iter().filter(|one| one["Health"] == "healthy").count();
    assert_eq!(healthy, 2);
    let exec = ["exec", "-T", "guest", "/bin/hello.wasm"];
    assert_eq!(project.run(&exec).ok().stdout, "hello from wasm\n");
    assert_eq!(project.run(&["exec", "-T", "native", "cat", "/data/note"]).ok().stdout, "of the image");
    project.run(&["exec", "-T", "guest", "/bin/exit.wasm", "9"]).expect(9);
    project.run(&["down", "--timeout", "5"]).ok();
    assert!(project.containers().is_empty());
}
