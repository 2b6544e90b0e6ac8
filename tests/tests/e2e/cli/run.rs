//! `lighter run`: a sandbox with no daemon, for root and for others; what the guest gets, and that nothing is left.

use std::{
    thread,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Output, Suite, guests, on_every_suite};

use super::Lighter;

on_every_suite! {
    output_and_exit_codes,
    a_trap,
    arguments,
    environment,
    input,
    no_files_by_default,
    folders,
    a_folder_over_another,
    no_network_by_default,
    ports,
    memory,
    timeout,
    what_can_not_start,
    signals,
    a_killed_run_takes_its_guest_along,
    needs_no_root,
    root_is_nobody_inside,
    nothing_is_left,
}

/// Runs a guest's file with these flags and arguments.
#[track_caller]
fn run(lighter: &Lighter<'_>, guest: &[u8], flags: &[&str], args: &[&str]) -> Output {
    lighter.write("guest.wasm", guest);
    lighter.run(&[&["run"], flags, &["guest.wasm", "--"], args].concat())
}

fn output_and_exit_codes(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    for guest in [guests::p1("hello"), guests::p2("hello")] {
        let output = run(&lighter, &guest, &[], &[]).ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("hello from wasm\n", "and to stderr\n"));
    }
    run(&lighter, &guests::wat("exit42"), &[], &[]).expect(42);
    run(&lighter, &guests::p1("exit"), &[], &["124"]).expect(124);
}

fn a_trap(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    for guest in [guests::p1("trap"), guests::p2("trap")] {
        let output = run(&lighter, &guest, &[], &[]).expect(134);
        for part in ["the guest panics on purpose", "unreachable", "::inner"] {
            assert!(output.stderr.contains(part), "no {part:?}\n{output}");
        }
    }
}

fn arguments(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    for guest in [guests::p1("show"), guests::p2("show")] {
        let shown = run(&lighter, &guest, &[], &["one", "two words", "", "--env"]).ok().stdout;
        assert!(shown.contains("arg[0]=guest.wasm\narg[1]=one\narg[2]=two words\narg[3]=\narg[4]=--env\n"), "{shown}");
    }
}

/// Nothing of the caller's, unless it is named.
fn environment(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite)).env("SECRET=password").env("COLOUR=of the caller");
    for guest in [guests::p1("show"), guests::p2("show")] {
        let shown = run(&lighter, &guest, &[], &[]).ok().stdout;
        assert!(!shown.contains("env "), "{shown}");
        let shown = run(&lighter, &guest, &["--env", "COLOUR", "--env", "SHAPE=round = good"], &[]).ok().stdout;
        assert!(shown.contains("env COLOUR=of the caller\nenv SHAPE=round = good\n"), "{shown}");
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

fn input(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    for guest in [guests::p1("cat"), guests::p2("cat")] {
        lighter.write("cat.wasm", guest);
        let output = lighter.cmd(&["run", "cat.wasm"]).stdin("some\ninput").run().ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("some\ninput", "EOF 10\n"));
    }
    let mut running = lighter.cmd(&["run", "cat.wasm"]).spawn();
    running.write("first\n");
    running.wait_for("first\n");
    running.write("second\n");
    running.wait_for("second\n");
    running.wait().ok();
}

/// Not even its own module, nor a place to write to; only the streams' device files, and where /proc was.
fn no_files_by_default(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    for guest in [guests::p1("files"), guests::p2("files")] {
        let listed = run(&lighter, &guest, &[], &["list", "/"]).ok().stdout;
        assert!(listed.lines().all(|name| ["dev", "proc", "sys"].contains(&name)), "{listed}");
        assert_eq!(run(&lighter, &guest, &[], &["list", "/proc"]).ok().stdout, "\n");
        for arguments in [
            &["write", "/new", "x"][..],
            &["write", "/dev/new", "x"],
            &["mkdir", "/new"],
            &["read", "/guest.wasm"],
            &["read", "/etc/hostname"],
            &["read", "/proc/self/mem"],
        ] {
            let refused = run(&lighter, &guest, &[], arguments).expect(1);
            assert!(refused.stdout.starts_with("error: "), "{arguments:?}\n{refused}");
        }
    }
}

fn folders(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    lighter.write("data/note", "of the host");
    let folder = format!("{}/data", lighter.folder());
    let (writable, read_only) = (format!("{folder}:/data"), format!("{folder}:/data:ro"));
    for guest in [guests::p1("files"), guests::p2("files")] {
        let with = |dir: &str, args: &[&str]| run(&lighter, &guest, &["--dir", dir], args);
        assert_eq!(with(&read_only, &["read", "/data/note"]).ok().stdout, "of the host\n");
        assert!(with(&read_only, &["write", "/data/new", "x"]).expect(1).stdout.starts_with("error: "));
        assert_eq!(with(&writable, &["write", "/data/new", "x"]).ok().stdout, "done\n");
        assert_eq!(lighter.read("data/new"), b"x");
        assert_eq!(with("./data:/data", &["read", "/data/new"]).ok().stdout, "x\n");
        assert_eq!(with(&writable, &["rm", "/data/new"]).ok().stdout, "done\n");
        // Out of the folder, which the sandbox has nothing beside.
        with(&writable, &["read", "/data/../../etc/hostname"]).expect(1);
        let here = run(&lighter, &guest, &["--dir", &writable, "--workdir", "/data"], &["read", "note"]).ok();
        assert_eq!(here.stdout, "of the host\n");
    }
    for (dir, says) in [("/proc:/data", "proc"), ("/nowhere:/data", "/nowhere")] {
        let refused = run(&lighter, &guests::p1("files"), &["--dir", dir], &["list", "/data"]).expect(125);
        assert!(refused.stderr.contains(says), "{refused}");
    }
    run(&lighter, &guests::p1("files"), &["--dir", "relative"], &[]).expect(2);
}

/// What is mounted later covers what is there, and the seal copes with what is covered.
fn a_folder_over_another(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    lighter.write("inner/note", "inner");
    lighter.write("outer/sub/note", "outer");
    let folder = lighter.folder();
    let (inner, outer) = (format!("{folder}/inner:/data/sub"), format!("{folder}/outer:/data"));
    for (first, second, note) in [(&inner, &outer, "outer\n"), (&outer, &inner, "inner\n")] {
        let flags = ["--dir", first, "--dir", second];
        assert_eq!(run(&lighter, &guests::p1("files"), &flags, &["read", "/data/sub/note"]).ok().stdout, note);
    }
    // Over the resolver's files, which come with the network.
    let flags = ["--network", "host", "--dir", &format!("{folder}/inner:/etc")];
    assert_eq!(run(&lighter, &guests::p1("files"), &flags, &["read", "/etc/note"]).ok().stdout, "inner\n");
}

fn no_network_by_default(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let lighter = Lighter::new(bed);
    let net = guests::p2("net");
    for arguments in [["connect", registry], ["listen", "127.0.0.1:8123"], ["resolve", "localhost"]] {
        let refused = run(&lighter, &net, &[], &arguments).expect(1);
        assert!(refused.stdout.starts_with("error: "), "{arguments:?}\n{refused}");
    }
    let connected = run(&lighter, &net, &["--network", "host"], &["connect", registry]).ok();
    assert_eq!(connected.stdout, format!("connected to {registry}\n"));
}

fn ports(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let lighter = Lighter::new(bed);
    let with = |port: &str, args: &[&str]| run(&lighter, &guests::p2("net"), &["--port", port], args);
    assert_eq!(with("127.0.0.1:8124", &["listen", "127.0.0.1:8124"]).ok().stdout, "listening on 127.0.0.1:8124\n");
    assert_eq!(with("8125", &["listen", "0.0.0.0:8125"]).ok().stdout, "listening on 0.0.0.0:8125\n");
    for arguments in [["listen", "127.0.0.1:8127"], ["connect", registry], ["resolve", "localhost"]] {
        let refused = with("127.0.0.1:8126", &arguments).expect(1);
        assert!(refused.stdout.starts_with("error: "), "{arguments:?}\n{refused}");
    }
}

fn memory(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    let output = run(&lighter, &guests::p1("memory"), &["--memory", "64MiB"], &[]).ok();
    let number = output.stdout.strip_prefix("memory.grow failed at ").and_then(|rest| rest.split(' ').next());
    let mebibytes: u32 = number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{output}"));
    assert!((16..=64).contains(&mebibytes), "{output}");
    for wrong in ["", "0", "lots", "-1"] {
        assert_ne!(run(&lighter, &guests::p1("memory"), &[&format!("--memory={wrong}")], &[]).status, 0, "{wrong:?}");
    }
}

fn timeout(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    run(&lighter, &guests::wat("exit0"), &["--timeout", "30s"], &[]).ok();
    for guest in [guests::p1("busy"), guests::p1("sleep"), guests::p2("sleep")] {
        // Compiled by the first; then it is the guest alone that takes time.
        for _ in 0..2 {
            let start = Instant::now();
            let output = run(&lighter, &guest, &["--timeout", "1500ms"], &[]).expect(124);
            assert!(start.elapsed() >= Duration::from_millis(1500), "took {:?}\n{output}", start.elapsed());
        }
    }
}

/// 125, as of other programs that start programs; and the guest's own codes stay its own.
fn what_can_not_start(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    lighter.write("text.wat", "(module)");
    lighter.write("empty.wasm", "");
    lighter.write("half.wasm", &guests::p1("hello")[..2000]);
    let missing = format!("{}/nothing/here:1", bed.registry());
    for (what, says) in [
        ("text.wat", "text"),
        ("empty.wasm", "empty"),
        ("half.wasm", "half.wasm"),
        ("nowhere.wasm", "nowhere.wasm"),
        (&missing, &missing),
    ] {
        let refused = lighter.run(&["run", what]).expect(125);
        assert!(refused.stdout.is_empty() && refused.stderr.contains(says), "{what}\n{refused}");
        assert!(refused.stderr.lines().any(|line| line.starts_with("lighter: ")), "{refused}");
    }
    lighter.write("hello.wasm", guests::p1("hello"));
    let refused = |flags: &[&str], says: &str| {
        let refused = lighter.run(&[&["run"], flags, &["hello.wasm"]].concat());
        assert!(refused.status == 125 || refused.status == 2, "{refused}");
        assert!(refused.stderr.contains(says), "{refused}");
    };
    refused(&["--engine", "no-such-engine"], "\"no-such-engine\", which there is not; use wasmtime, wasmedge or wamr");
    refused(&["--annotation", "run.lighter.engine=wamrr"], "\"wamrr\"");
    refused(&["--annotation", "run.lighter.netwrok=none"], "did you mean run.lighter.network?");
    refused(&["--annotation", "network=none"], "does not start with run.lighter.");
    refused(&["--annotation", "run.lighter.http.reuse=often"], "run.lighter.http.reuse=\"often\"");
    for flags in [["--engine", "wasmtime"], ["--engine", "wamr"], ["--annotation", "run.lighter.engine=wamr"]] {
        assert_eq!(
            lighter.run(&["run", flags[0], flags[1], "hello.wasm"]).ok().stdout,
            "hello from wasm\n",
            "{flags:?}"
        );
    }
    lighter.run(&["run"]).expect(2);
}

/// Starts a guest that prints `ready`, as the process whose pid is returned.
#[track_caller]
fn start(lighter: &Lighter<'_>, guest: &[u8], script: &str) -> (lighter_tests::Running, String) {
    lighter.write("guest.wasm", guest);
    let running = lighter.sh(&format!("echo pid $$; {script}")).spawn();
    running.wait_for("ready");
    let pid = running.stdout().lines().find_map(|line| line.strip_prefix("pid ").map(str::to_owned));
    (running, pid.expect("a pid"))
}

fn signals(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let (running, pid) = start(&lighter, &guests::p1("busy"), "exec lighter run guest.wasm");
        bed.cmd(&["kill", &format!("-{signal}"), &pid]).run().ok();
        running.wait().expect(status);
    }
}

/// The bed's processes that run a guest of this folder.
fn runners(lighter: &Lighter<'_>) -> String {
    lighter.sh("ps -eo pid,args | grep '[l]ighter-wasmtime' || true").run().ok().stdout
}

fn a_killed_run_takes_its_guest_along(suite: Suite) {
    // Of its own: what runs there is this test's.
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    let (running, pid) = start(&lighter, &guests::p1("busy"), "exec lighter run guest.wasm");
    assert_ne!(runners(&lighter), "");
    bed.cmd(&["kill", "-KILL", &pid]).run().ok();
    running.wait().expect(137);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !runners(&lighter).is_empty() {
        assert!(Instant::now() < deadline, "still there: {}", runners(&lighter));
        thread::sleep(Duration::from_millis(50));
    }
    // The next run cleans up after it.
    run(&lighter, &guests::wat("hello"), &[], &[]).ok();
    assert_clean(&lighter);
}

/// No process, mount, cgroup or folder of a run is left.
#[track_caller]
fn assert_clean(lighter: &Lighter<'_>) {
    assert_eq!(runners(lighter), "");
    let left = lighter.sh("grep -h lighter/run- /proc/self/mountinfo || true
         find /sys/fs/cgroup -type d -name 'run-*' 2>/dev/null || true
         find /run/lighter /run/user /tmp -maxdepth 4 -name 'run-*' 2>/dev/null || true");
    assert_eq!(left.run().ok().stdout, "");
}

const USER: &[&str] = &["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];

fn needs_no_root(suite: Suite) {
    let bed = Bed::get(suite);
    let home = Lighter::new(bed);
    home.sh("chown 1000:1000 .; mkdir run; chown 1000:1000 run; chmod 700 run").run().ok();
    let (path, runtime) = (format!("HOME={}", home.folder()), format!("XDG_RUNTIME_DIR={}/run", home.folder()));
    let user = home.env(&path).env(&runtime);
    let run = |arguments: &[&str]| user.program(&[USER, &["lighter"], arguments].concat()).run();
    user.write("hello.wasm", guests::p1("hello"));
    user.write("files.wasm", guests::p1("files"));
    user.write("net.wasm", guests::p2("net"));
    user.write("data/note", "mine");
    user.sh("chown -R 1000:1000 data").run().ok();
    assert_eq!(run(&["run", "hello.wasm"]).ok().stdout, "hello from wasm\n");
    let digest = run(&["build", "hello.wasm", "-t", "mine:1", "--format", "tar"]).ok().stdout;
    assert!(digest.contains("sha256:"), "{digest}");
    assert_eq!(run(&["run", "mine:1"]).ok().stdout, "hello from wasm\n");

    let wrote = run(&["run", "--dir", "data:/data", "files.wasm", "--", "write", "/data/new", "x"]).ok();
    assert_eq!(wrote.stdout, "done\n");
    // What it made is its caller's.
    assert_eq!(user.sh("stat -c %u:%g data/new").run().ok().stdout, "1000:1000\n");
    run(&["run", "--dir", "data:/data:ro", "files.wasm", "--", "write", "/data/new", "y"]).expect(1);
    // It can't open what its caller can't.
    user.sh("echo secret >data/of-root; chmod 600 data/of-root; chown 0:0 data/of-root").run().ok();
    run(&["run", "--dir", "data:/data", "files.wasm", "--", "read", "/data/of-root"]).expect(1);
    run(&["run", "net.wasm", "--", "connect", bed.registry()]).expect(1);
    assert_eq!(user.sh("ls -A run/lighter | grep ^run- || true").run().ok().stdout, "");
}

/// Only with folders of the host's has it a name there.
fn root_is_nobody_inside(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let (running, pid) = start(&lighter, &guests::p1("busy"), "exec lighter run guest.wasm");
    let descendants = "p=$1; while c=$(cat /proc/$p/task/*/children) && [ -n \"$c\" ]; do p=${c%% *}; done
                       grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/$p/status";
    let status = bed.cmd(&["sh", "-ec", descendants, "sh", &pid]).run().ok().stdout;
    assert!(status.contains("Uid:\t65534\t65534"), "{status}");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
    bed.cmd(&["kill", &pid]).run().ok();
    running.wait().expect(143);
}

fn nothing_is_left(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    lighter.write("data/note", "x");
    lighter.build(&guests::p1("hello"), "left:1", &["--format", "tar"]);
    run(&lighter, &guests::p1("hello"), &["--dir", "data:/data"], &[]).ok();
    lighter.run(&["run", "left:1"]).ok();
    run(&lighter, &guests::p1("trap"), &[], &[]).expect(134);
    run(&lighter, &guests::p1("busy"), &["--timeout", "1s"], &[]).expect(124);
    run(&lighter, b"(module)", &[], &[]).expect(125);
    run(&lighter, &guests::p1("show"), &["--dir", "/nowhere:/x"], &[]).expect(125);
    assert_clean(&lighter);
    assert_eq!(lighter.read("data/note"), b"x");
}
