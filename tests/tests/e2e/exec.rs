//! Processes that are added to a running container: `docker exec`, and `ctr tasks exec`.

use std::{collections::BTreeSet, fs, thread};

use lighter_tests::{Bed, ENTRYPOINT, Image, Output, PLATFORM, RUNTIME, Suite, guests, on_every_suite};

use crate::{cleanup::remove, container::Container};

on_every_suite! {
    another_program_of_the_image,
    the_same_program,
    what_can_not_be_run,
    many_at_once,
    is_sealed,
    does_not_escape,
    a_layer_of_the_image,
    ends_with_the_container,
}

/// An image whose guest waits, with others to be added.
fn image(name: &str) -> Image {
    Image::wasm(&format!("docker.io/library/{name}:latest"), guests::p1("sleep"))
        .file("/bin/show.wasm", guests::p1("show"))
        .file("/bin/component.wasm", guests::p2("show"))
        .file("/bin/exit.wasm", guests::p1("exit"))
        .file("/bin/cat.wasm", guests::p1("cat"))
        .file("/bin/files.wasm", guests::p1("files"))
        .file("/bin/trap.wasm", guests::p1("trap"))
        .file("/bin/waits.wasm", guests::p1("sleep"))
        .file("/bin/waits-p2.wasm", guests::p2("sleep"))
        .file("/bin/native", b"\x7fELF\x02\x01\x01 and more".as_slice())
        .file("/bin/broken.wasm", b"\0asm".as_slice())
        .file("/note", "of the image\n")
        .folder("/work")
        .env("OF", "the image")
        .env("PATH", "/bin")
}

fn waiting<'bed>(bed: &'bed Bed, name: &str, flags: &[&str]) -> Container<'bed> {
    let image = image(name);
    bed.docker_load(&image);
    let container = Container { bed, name: name.to_owned() };
    let run = ["run", "--detach", "--name", name, "--runtime", RUNTIME, "--platform", PLATFORM];
    bed.docker(&[&run, flags, &[image.name()]].concat()).run().ok();
    container.wait_for_log("ready");
    container
}

/// `docker exec FLAGS CONTAINER ARGS`.
fn exec(container: &Container<'_>, flags: &[&str], args: &[&str]) -> Output {
    container.bed.docker(&[&["exec"], flags, &[&container.name], args].concat()).run()
}

fn another_program_of_the_image(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("mkdir -p /srv/exec && echo of the volume >/srv/exec/note").run().ok();
    let container = waiting(bed, "exec-other", &["--volume", "/srv/exec:/data", "--env", "ALSO=this"]);
    for program in ["/bin/show.wasm", "show.wasm", "component.wasm"] {
        let flags = ["--env", "MORE=x=y", "--workdir", "/work"];
        let shown = exec(&container, &flags, &[program, "a", "b c"]).ok().stdout;
        for line in ["arg[1]=a", "arg[2]=b c", "env ALSO=this", "env MORE=x=y", "env OF=the image"] {
            assert!(shown.lines().any(|l| l == line), "{program}: no {line} in\n{shown}");
        }
    }
    assert_eq!(exec(&container, &[], &["files.wasm", "read", "/data/note"]).ok().stdout, "of the volume\n\n");
    exec(&container, &[], &["files.wasm", "write", "/work/new", "of exec"]).ok();
    assert_eq!(exec(&container, &[], &["files.wasm", "read", "/work/new"]).ok().stdout, "of exec\n");
    for code in [0, 7, 125] {
        exec(&container, &[], &["exit.wasm", &code.to_string()]).expect(code);
    }
    let trap = exec(&container, &[], &["trap.wasm"]).expect(134);
    assert!(trap.stderr.contains("the guest panics on purpose"), "{trap}");
    let docker = ["exec", "--interactive", &container.name, "cat.wasm"];
    let copied = bed.docker(&docker).stdin("some\ninput").run().ok();
    assert_eq!((copied.stdout.as_str(), copied.stderr.as_str()), ("some\ninput", "EOF 10\n"));
    // The container goes on.
    assert_eq!(container.inspect("{{.State.Status}}"), "running");
}

fn the_same_program(suite: Suite) {
    let container = waiting(Bed::get(suite), "exec-same", &[]);
    assert_eq!(exec(&container, &[], &[ENTRYPOINT, "0"]).ok().stdout, "ready\ndone\n");
}

fn what_can_not_be_run(suite: Suite) {
    let container = waiting(Bed::get(suite), "exec-wrong", &[]);
    let rows = [
        ("nope.wasm", "exec: \"nope.wasm\": no such file or directory in the container"),
        ("/bin/nope", "exec: \"/bin/nope\": no such file or directory in the container"),
        ("/bin/broken.wasm", "is a truncated WebAssembly file"),
        ("/bin/native", "this container runs WebAssembly"),
    ];
    for (program, message) in rows {
        let output = exec(&container, &[], &[program]);
        // Which code and which stream it is depends on Docker's version, also with runc.
        assert!((126..=128).contains(&output.status), "{program}: {output}");
        assert!(output.stderr.contains(message) || output.stdout.contains(message), "{program}: {output}");
    }
    container.docker("kill", &[]).ok();
    container.docker("wait", &[]).ok();
    let stopped = exec(&container, &[], &["show.wasm"]);
    assert!(stopped.status > 0 && stopped.stderr.contains("is not running"), "{stopped}");
}

fn many_at_once(suite: Suite) {
    let container = waiting(Bed::get(suite), "exec-many", &[]);
    thread::scope(|scope| {
        for number in 0..20 {
            let container = &container;
            scope.spawn(move || exec(container, &[], &["exit.wasm", &number.to_string()]).expect(number));
        }
    });
    assert_eq!(container.docker("top", &[]).ok().stdout.lines().count(), 2);
}

/// Ids of the container's processes, the init's first, once there are two.
fn two_processes(container: &Container<'_>) -> [String; 2] {
    let init = container.inspect("{{.State.Pid}}");
    for _ in 0..200 {
        let top = container.docker("top", &[]);
        let pids = top.stdout.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
        let other = pids.filter(|pid| *pid != init).map(str::to_owned).next();
        if let Some(other) = other {
            return [init, other];
        }
        thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("no second process in {}", container.docker("top", &[]));
}

fn is_sealed(suite: Suite) {
    let bed = Bed::get(suite);
    for (name, guest, flags) in [
        ("exec-sealed-p1", "waits.wasm", &[][..]),
        ("exec-sealed-p2", "waits-p2.wasm", &[]),
        ("exec-sealed-user", "waits.wasm", &["--user", "1234:4321"]),
        ("exec-sealed-privileged", "waits.wasm", &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]),
    ] {
        let container = waiting(bed, name, flags);
        container.docker_exec_detached(&[guest]);
        let [init, added] = two_processes(&container);
        let read = |pid: &str, file: &str| {
            fs::read_to_string(bed.path(format!("/proc/{pid}/{file}"))).expect("a file of the process")
        };
        let lines = |pid: &str| -> BTreeSet<String> {
            let compared =
                ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "SigIgn", "SigBlk", "Umask", "NSsid"];
            let status = read(pid, "status");
            status.lines().filter(|l| compared.iter().any(|c| l.starts_with(c))).map(str::to_owned).collect()
        };
        let mut expected = lines(&init);
        let mut ours = lines(&added);
        // Each leads a session of its own.
        expected.retain(|line| !line.starts_with("NSsid"));
        ours.retain(|line| !line.starts_with("NSsid"));
        assert_eq!(expected, ours, "{name}");
        assert!(ours.contains("CapBnd:\t0000000000000000") && ours.contains("Seccomp:\t2"), "{name}: {ours:?}");
        for file in ["cgroup", "oom_score_adj", "limits"] {
            assert_eq!(read(&init, file), read(&added, file), "{file} of {name}");
        }
        for namespace in ["pid", "net", "ipc", "uts", "cgroup", "user"] {
            let of = |pid: &str| fs::read_link(bed.path(format!("/proc/{pid}/ns/{namespace}"))).expect("a namespace");
            assert_eq!(of(&init), of(&added), "{namespace} of {name}");
        }
        let mounts = read(&added, "mountinfo");
        assert!(!mounts.contains(" - proc ") && !mounts.contains(" - sysfs "), "{name}: {mounts}");
    }
}

/// The guest that tries to get out, where another one runs already.
fn does_not_escape(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("echo the canary >/srv/canary").run().ok();
    for (name, guest) in [("exec-escape-p1", guests::p1("escape")), ("exec-escape-p2", guests::p2("escape"))] {
        let image = image(name)
            .file("/bin/escape.wasm", guest)
            .file("/a/b/file", "")
            .symlink("/link-absolute", "/srv/canary")
            .symlink("/link-relative", "../../../../../../../../../../../../srv/canary")
            .symlink("/link-proc", "/proc/self/environ");
        bed.docker_load(&image);
        let container = Container { bed, name: name.to_owned() };
        let run = ["run", "--detach", "--read-only", "--network", "none", "--name", name, "--runtime", RUNTIME];
        bed.docker(&[&run[..], &["--platform", PLATFORM, image.name()]].concat()).run().ok();
        container.wait_for_log("ready");
        let tried = exec(&container, &[], &["escape.wasm", "/srv/canary", "read-only-rootfs"]).ok();
        let escapes: Vec<_> = tried.stdout.lines().filter(|line| !line.contains(": refused (")).collect();
        assert!(escapes.is_empty() && tried.stdout.lines().count() > 50, "{escapes:#?}\n{tried}");
        assert_eq!(bed.sh("cat /srv/canary").run().ok().stdout, "the canary\n");
    }
}

/// Where the module is no file, it has the name that it was started by. Under `ctr`: Docker 26 names no image to the shim.
fn a_layer_of_the_image(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::layer("docker.io/library/exec-layer:latest", guests::p1("sleep")).entrypoint(&["/sleep.wasm"]);
    bed.import(&image);
    let run = ["run", "--detach", "--runtime", RUNTIME, "--platform", PLATFORM, image.name(), "exec-layer"];
    bed.ctr(&run).run().ok();
    let exec = |args: &[&str]| bed.ctr(&[&["tasks", "exec", "--exec-id", "added", "exec-layer"], args].concat()).run();
    assert_eq!(exec(&["/sleep.wasm", "0"]).ok().stdout, "ready\ndone\n");
    let other = exec(&["/other.wasm"]);
    assert!(other.status > 0 && other.stderr.contains("no such file or directory in the container"), "{other}");
    remove(bed, "exec-layer");
    bed.assert_gone("exec-layer");
}

fn ends_with_the_container(suite: Suite) {
    let bed = Bed::get(suite);
    for (name, flags) in [("exec-ends", &[][..]), ("exec-ends-host", &["--pid", "host"])] {
        let container = waiting(bed, name, flags);
        let id = container.inspect("{{.Id}}");
        container.docker_exec_detached(&["waits.wasm"]);
        let [_, added] = two_processes(&container);
        container.docker("stop", &[]).ok();
        assert!(!bed.path(format!("/proc/{added}/cmdline")).exists(), "{name}: the added process goes on");
        drop(container);
        bed.assert_gone(&id);
    }
}
