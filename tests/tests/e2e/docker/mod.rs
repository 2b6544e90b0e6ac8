//! What Docker's users do with containers.
//!
//! Here is what is a guest's alone; the modules hold what a guest, a native program and the same under runc do alike.

mod apparmor;
mod compose;
mod docs;
mod exec;
mod figures;
mod health;
mod kind;
mod life;
mod mounts;
mod network;
mod streams;
mod systemd;
mod terminal;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Cmd, Image, Suite, free_port, guests, on_every_suite};

use crate::{
    case::{Client, lines},
    container::Container,
};

on_every_suite! {
    volumes,
    read_only_rootfs,
    network_none,
    network_annotation,
    network_host,
    memory_limit,
    memory_follows_an_update,
    user,
    detached_with_logs,
    stop_ends_a_busy_loop_at_once,
    stop_ends_a_sleeper_at_once,
    stop_ends_a_component_at_once,
    kill,
    wait_and_ps,
    remove_by_force,
    large_output,
    no_input,
    interactive_before_end_of_input,
    components_at_a_terminal,
    other_engines,
}

/// Far below the 10 s after which Docker kills, far above what it takes.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Runs `files` with these flags and arguments, and returns its exit code and what it printed.
#[track_caller]
fn files(bed: &Bed, guest: &[u8], id: &str, flags: &[&str], args: &[&str]) -> (i32, String) {
    let image = Image::wasm("docker.io/library/files:latest", guest).folder("/data");
    let output = Client::Docker.run(bed, &image, id, flags, args).run();
    (output.status, output.stdout.trim_end().to_owned())
}

fn volumes(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("mkdir -p /srv/volume/sub && echo from the host >/srv/volume/file").run().ok();
    for (kind, guest) in [("p1", guests::p1("files")), ("p2", guests::p2("files"))] {
        let run = |flag, args: &[&str]| files(bed, &guest, &format!("volumes-{kind}"), &["--volume", flag], args);
        let (writable, read_only) = ("/srv/volume:/data", "/srv/volume:/data:ro");
        assert_eq!(run(read_only, &["read", "/data/file"]), (0, "from the host".to_owned()));
        assert_eq!(run(read_only, &["list", "/data"]).0, 0);
        let (status, refusal) = run(read_only, &["write", "/data/new", "x"]);
        assert!(status == 1 && refusal.starts_with("error: "), "{refusal}");
        assert_eq!(run(read_only, &["rm", "/data/file"]).0, 1);

        assert_eq!(run(writable, &["write", "/data/sub/new", kind]), (0, "done".to_owned()));
        assert_eq!(bed.sh("cat /srv/volume/sub/new").run().ok().stdout, kind);
        assert_eq!(run(writable, &["rename", "/data/sub/new", "/data/moved"]).0, 0);
        assert_eq!(run(writable, &["rm", "/data/moved"]).0, 0);
        assert_eq!(bed.sh("ls /srv/volume").run().ok().stdout, "file\nsub\n");
    }
}

fn read_only_rootfs(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("mkdir -p /srv/writable").run().ok();
    let flags = ["--read-only", "--volume", "/srv/writable:/data"];
    let run = |args: &[&str]| files(bed, &guests::p1("files"), "read-only", &flags, args);
    assert_eq!(run(&["write", "/new", "x"]).0, 1);
    assert_eq!(run(&["append", "/app.wasm", "x"]).0, 1);
    assert_eq!(run(&["write", "/data/new", "x"]), (0, "done".to_owned()));
}

fn network_none(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let image = Image::wasm("docker.io/library/net:latest", guests::p2("net"));
    let run = |args: &[&str]| Client::Docker.run(bed, &image, "network-none", &["--network", "none"], args).run();
    let connect = run(&["connect", registry]).expect(1);
    assert!(connect.stdout.starts_with("error: "), "{connect}");
}

fn network_host(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let image = Image::wasm("docker.io/library/net:latest", guests::p2("net"));
    let run = |args: &[&str]| Client::Docker.run(bed, &image, "network-host", &["--network", "host"], args).run();
    assert_eq!(run(&["connect", registry]).ok().stdout, format!("connected to {registry}\n"));
    assert_eq!(run(&["listen", "127.0.0.1:8081"]).ok().stdout, "listening on 127.0.0.1:8081\n");
    let resolved = run(&["resolve", "localhost"]).ok();
    assert!(resolved.stdout.contains("127.0.0.1:0"), "{resolved}");
}

/// The host's network is there, but the guest is not granted it.
fn network_annotation(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let image = Image::wasm("docker.io/library/net:latest", guests::p2("net"));
    let run = |value: &str, args: &[&str]| {
        let flags = ["--network", "host", "--annotation", &format!("run.lighter.network={value}")];
        Client::Docker.run(bed, &image, &format!("network-annotation-{value}"), &flags, args).run()
    };
    let refused = run("none", &["connect", registry]).expect(1);
    assert!(refused.stdout.contains("PermissionDenied"), "{refused}");
    let refused = run("none", &["resolve", "localhost"]).expect(1);
    assert!(refused.stdout.starts_with("error: "), "{refused}");
    run("all", &["connect", registry]).ok();
    let unknown = run("nome", &["connect", registry]);
    assert!(unknown.stderr.contains(r#"run.lighter.network="nome" is not understood"#), "{unknown}");
}

fn memory_limit(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/memory:latest", guests::p1("memory"));
    // The guest's memory ends before the kernel's patience does: it is told, not killed.
    let run = Client::Docker.run(bed, &image, "memory-limit", &["--memory", "64m"], &[]).run().ok();
    let reached = run.stdout.trim().strip_prefix("memory.grow failed at ").and_then(|text| text.strip_suffix(" MiB"));
    let reached: u32 = reached.and_then(|mib| mib.parse().ok()).unwrap_or_else(|| panic!("{run}"));
    assert!((16..64).contains(&reached), "{run}");

    let sleeper = Container::ready(bed, "memory-of-sleeper", &guests::wat("sleep"), &["--memory", "64m"]);
    let cgroup = bed.path(format!("/proc/{}/cgroup", sleeper.inspect("{{.State.Pid}}")));
    let cgroup = std::fs::read_to_string(cgroup).expect("cgroup of the container");
    let id = sleeper.inspect("{{.Id}}");
    assert!(
        cgroup.lines().any(|line| (line.contains("memory") || line.starts_with("0::")) && line.contains(&id)),
        "{cgroup}"
    );
    let stats = sleeper.docker("stats", &["--no-stream", "--format", "{{.MemUsage}}"]).ok();
    assert!(stats.stdout.trim().ends_with("/ 64MiB"), "{stats}");
}

/// A guest is told where its memory ends, wherever that is by now.
fn memory_follows_an_update(suite: Suite) {
    let bed = Bed::get(suite);
    let port = free_port();
    let flags = ["--memory", "64m", "--memory-swap", "64m", "--publish", &format!("{port}:8080")];
    let handler = network::serve(bed, kind::Kind::Guest, "memory-follows", &flags);
    let status = |path| network::answer(bed, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path).status;
    assert_eq!([status("/alloc?mb=20"), status("/alloc?mb=90")], [200, 507]);
    handler.docker("update", &["--memory", "256m", "--memory-swap", "256m"]).ok();
    assert_eq!([status("/alloc?mb=90"), status("/alloc?mb=300")], [200, 507]);
    handler.docker("update", &["--memory", "64m", "--memory-swap", "64m"]).ok();
    assert_eq!([status("/alloc?mb=20"), status("/alloc?mb=90")], [200, 507]);
    assert_eq!(handler.inspect("{{.State.Status}} {{.State.OOMKilled}}"), "running false");
}

fn user(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("install -d -o 1234 -g 4321 /srv/of-user").run().ok();
    let guest = guests::p1("files");
    let flags = ["--user", "1234:4321", "--volume", "/srv/of-user:/data"];
    assert_eq!(files(bed, &guest, "user", &flags, &["write", "/data/new", "x"]).0, 0);
    assert_eq!(bed.sh("stat -c %u:%g /srv/of-user/new").run().ok().stdout, "1234:4321\n");
    bed.sh("install -d -m 700 /srv/of-root && touch /srv/of-root/file").run().ok();
    let flags = ["--user", "1234:4321", "--volume", "/srv/of-root:/data"];
    assert_eq!(files(bed, &guest, "user", &flags, &["list", "/data"]).0, 1);

    let sleeper = Container::ready(bed, "of-user", &guests::wat("sleep"), &["--user", "1234:4321"]);
    let status = bed.path(format!("/proc/{}/status", sleeper.inspect("{{.State.Pid}}")));
    let status = std::fs::read_to_string(status).expect("status of the container");
    assert!(status.contains("Uid:\t1234\t1234\t1234\t1234\n"), "{status}");
    assert!(status.contains("Gid:\t4321\t4321\t4321\t4321\n"), "{status}");
}

fn detached_with_logs(suite: Suite) {
    let bed = Bed::get(suite);
    let hello = Container::detach(bed, "detached", &guests::p1("hello"), &[], &[]);
    assert_eq!(hello.docker("wait", &[]).ok().stdout, "0\n");
    let logs = hello.docker("logs", &[]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("hello from wasm\n", "and to stderr\n"));
    assert_eq!(hello.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
}

#[track_caller]
fn stopped_at_once(suite: Suite, name: &str, guest: &[u8]) {
    let bed = Bed::get(suite);
    let container = Container::ready(bed, name, guest, &[]);
    let start = Instant::now();
    container.docker("stop", &[]).ok();
    assert!(start.elapsed() < AT_ONCE, "docker stop took {:?}", start.elapsed());
    assert_eq!(container.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 143");
}

fn stop_ends_a_busy_loop_at_once(suite: Suite) {
    stopped_at_once(suite, "stop-busy", &guests::wat("busy"));
}

fn stop_ends_a_sleeper_at_once(suite: Suite) {
    stopped_at_once(suite, "stop-sleeper", &guests::wat("sleep"));
}

fn stop_ends_a_component_at_once(suite: Suite) {
    stopped_at_once(suite, "stop-component", &guests::p2("sleep"));
    stopped_at_once(suite, "stop-busy-component", &guests::p2("busy"));
}

fn kill(suite: Suite) {
    let bed = Bed::get(suite);
    let busy = Container::ready(bed, "kill", &guests::wat("busy"), &[]);
    busy.docker("kill", &[]).ok();
    assert_eq!(busy.docker("wait", &[]).ok().stdout, "137\n");
    let busy = Container::ready(bed, "kill-int", &guests::wat("busy"), &[]);
    busy.docker("kill", &["--signal", "INT"]).ok();
    assert_eq!(busy.docker("wait", &[]).ok().stdout, "130\n");
}

fn wait_and_ps(suite: Suite) {
    let bed = Bed::get(suite);
    let sleeper = Container::ready(bed, "waited-for", &guests::wat("sleep"), &[]);
    let listed = bed.docker(&["ps", "--filter", "name=waited-for", "--format", "{{.Names}} {{.State}}"]).run().ok();
    assert_eq!(listed.stdout, "waited-for running\n");
    let waiters: Vec<_> = (0..4).map(|_| bed.docker(&["wait", "waited-for"]).spawn()).collect();
    sleeper.docker("stop", &[]).ok();
    for waiter in waiters {
        assert_eq!(waiter.wait().ok().stdout, "143\n");
    }
    let running = bed.docker(&["ps", "--quiet", "--filter", "name=waited-for"]).run().ok();
    assert_eq!(running.stdout, "");
}

fn remove_by_force(suite: Suite) {
    let bed = Bed::get(suite);
    let busy = Container::ready(bed, "removed", &guests::wat("busy"), &[]);
    let id = busy.inspect("{{.Id}}");
    busy.docker("rm", &["--force"]).ok();
    bed.assert_gone(&id);
    let listed = bed.docker(&["ps", "--all", "--quiet", "--filter", "name=removed"]).run().ok();
    assert_eq!(listed.stdout, "");
}

/// Not by `ctr`, which drops what it has not read when a task ends, of runc's tasks as well.
fn large_output(suite: Suite) {
    let bed = Bed::get(suite);
    for guest in [guests::p1("flood"), guests::p2("flood")] {
        let image = Image::wasm("docker.io/library/flood:latest", guest);
        let output = Client::Docker.run(bed, &image, "large-output", &[], &["8000000"]).run().ok();
        assert_eq!(output.stdout.len(), 8_000_000);
        assert!(output.stdout == lines(8_000_000), "{output:.400}");
    }
}

fn no_input(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/cat:latest", guests::p1("cat"));
    for flags in [&[][..], &["--interactive"]] {
        let output = Client::Docker.run(bed, &image, "no-input", flags, &[]).run().ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "EOF 0\n"));
    }
}

fn interactive_before_end_of_input(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/cat:latest", guests::p1("cat"));
    let mut cat = Client::Docker.run(bed, &image, "interactive", &["--interactive"], &[]).spawn();
    cat.write("first\n");
    cat.wait_for("first\n");
    cat.write("second\n");
    cat.wait_for("second\n");
    let output = cat.wait().ok();
    assert_eq!(output.stderr, "EOF 13\n");
}

/// Types a line into a command that copies its input, and ends it.
#[track_caller]
fn type_a_line(cat: Cmd) {
    let mut terminal = cat.at_terminal(24, 80);
    terminal.wait_until_raw();
    terminal.type_keys("a line\r");
    terminal.wait_for("a line\r\na line\r\n");
    terminal.type_keys("\x04");
    terminal.wait().ok();
}

fn components_at_a_terminal(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/terminal-p2:latest", guests::p2("cat"));
    let image = image.file("/sleep.wasm", guests::p2("sleep")).file("/hello.wasm", guests::p2("hello"));
    type_a_line(Client::Docker.run(bed, &image, "component-typed", &["-it"], &[]));
    let sleeper = Container { bed, name: "component-exec".to_owned() };
    let flags = ["--detach", "--entrypoint", "/sleep.wasm"];
    Client::Docker.run(bed, &image, &sleeper.name, &flags, &[]).run().ok();
    sleeper.wait_for_log("ready");
    let hello = bed.docker(&["exec", &sleeper.name, "/hello.wasm"]).run().ok();
    assert_eq!((hello.stdout.as_str(), hello.stderr.as_str()), ("hello from wasm\n", "and to stderr\n"));
    type_a_line(bed.docker(&["exec", "-it", &sleeper.name, "/app.wasm"]));
}

/// Whichever engine runs a container runs its further commands too, at terminals as well.
fn other_engines(suite: Suite) {
    let bed = Bed::get(suite);
    // Where its library is.
    let engines: &[&str] = if suite == Suite::Forky { &["wamr", "wasmedge"] } else { &["wamr"] };
    let image = Image::wasm("docker.io/library/other-engines:latest", guests::p1("cat"));
    let image = image.file("/sleep.wasm", guests::p1("sleep")).file("/exit.wasm", guests::p1("exit"));
    for engine in engines {
        let annotation = format!("run.lighter.engine={engine}");
        let flags = ["--annotation", &annotation];
        let typed = format!("typed-{engine}");
        type_a_line(Client::Docker.run(bed, &image, &typed, &[&flags[..], &["-it"]].concat(), &[]));
        let sleeper = Container { bed, name: format!("exec-{engine}") };
        let flags = [&flags[..], &["--detach", "--entrypoint", "/sleep.wasm"]].concat();
        Client::Docker.run(bed, &image, &sleeper.name, &flags, &[]).run().ok();
        sleeper.wait_for_log("ready");
        let top = sleeper.docker("top", &[]).ok();
        assert!(top.stdout.contains(&format!("lighter-{engine}")), "{top}");
        bed.docker(&["exec", &sleeper.name, "/exit.wasm", "42"]).run().expect(42);
        type_a_line(bed.docker(&["exec", "-it", &sleeper.name, "/app.wasm"]));
        sleeper.docker("pause", &[]).ok();
        sleeper.docker("unpause", &[]).ok();
        sleeper.docker("stop", &[]).ok();
    }
}
