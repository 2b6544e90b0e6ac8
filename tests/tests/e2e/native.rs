//! Native containers: whatever a program sees or gets under runc, it sees or gets under Lighter.
//!
//! Each row runs by both runtimes with the same flags, and what its user sees must be the same, line by line.

use std::time::{Duration, Instant};

use lighter_tests::{Bed, Image, Output, RUNTIME, Suite, on_every_suite, vm};

on_every_suite! {
    programs,
    added_programs,
    limits_of_what_it_may,
    files,
    networks,
    what_cannot_be_run,
    signals,
    memory_limit,
    memory_of_an_idle_container,
    beside_a_guest,
}

const RUNC: &str = "io.containerd.runc.v2";
const IMAGE: &str = "docker.io/library/busybox:native";

/// All that a process can be told of itself and its container, in the order of its file names.
const PROBE: &str = r#"
grep -E '^(Uid|Gid|Groups|NSsid|NoNewPrivs|Seccomp|Seccomp_filters|Cap...|Sig(Pnd|Blk|Cgt)|Shd...|Umask|Threads):' /proc/self/status
# runc leaves SIGHUP ignored where whoever started the daemons did; of the others, SIGPIPE is the one that matters.
echo $((0x$(sed -n 's/^SigIgn:.//p' /proc/self/status) & 0x1000))
umask; id; pwd; hostname; env; ulimit -a
cat /proc/self/oom_score_adj /proc/self/comm
tr '\0' ' ' </proc/self/cmdline; echo
for n in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/1/fd/$n && echo fd $n; done
cut -d' ' -f4- /proc/self/mountinfo | awk '{ last[$2] = $0 } END { for (at in last) print last[at] }' |
  sed -E 's/ - (overlay|sysfs) .*/ - \1/; s/ - tmpfs tmpfs ro.*/ - tmpfs ro/' | sort
cut -d: -f2- /proc/self/cgroup | sort
ls -ln /dev | sed 's/[A-Z][a-z][a-z] .*[0-9] \([^ ]*\( -> .*\)\?\)$/\1/'
sort /sys/fs/cgroup/devices/devices.list
grep -v ' _ses' /proc/keys | sed 's/.* keyring/keyring/'
"#;

/// What a process should not do, each with what came of it. For containers that have something to keep them only, and of
/// what reaches no further than the container should it succeed: the kernel's settings and clock are the machine's.
const ATTEMPTS: &str = r#"
try() { "$@" >/dev/null 2>/tmp/why && echo "$*: done" || echo "$*: $(cat /tmp/why)"; }
try mount -t tmpfs none /mnt
try mount -o remount,rw /proc/sys
try umount /proc/kcore
try umount /proc
try sh -c 'echo 0 >/sys/fs/cgroup/devices/cgroup.procs'
try sh -c 'echo a >/sys/fs/cgroup/devices/devices.allow'
try head -c 1 /proc/kcore
try head -c 1 /proc/timer_list
try ls /sys/firmware/dmi
try mknod /tmp/loop b 7 0
try head -c 1 /tmp/loop
try mknod /tmp/mem c 1 1
try head -c 1 /tmp/mem
try mknod /tmp/tun c 10 200
try head -c 1 /tmp/tun
try chroot / true
try unshare -n true
try unshare -U true
try hostname other
try dmesg
try chown 5 /tmp
try su nobody -s /bin/true
try nsenter -t 1 -m true
try ip link set lo mtu 1400
try kill -0 1
"#;

/// An image of busybox from the bed, for the host's platform.
fn image(bed: &Bed) -> Image {
    let busybox = std::fs::read(bed.path("/bin/busybox")).expect("busybox of the bed");
    let applets = [
        "awk", "cat", "chown", "chroot", "cut", "dd", "dmesg", "env", "grep", "head", "hostname", "id", "ip", "kill",
        "ls", "mknod", "mount", "nc", "nsenter", "ping", "printf", "ps", "pwd", "rm", "sed", "sh", "sleep", "sort",
        "stat", "su", "tail", "test", "touch", "tr", "true", "umount", "unshare", "yes", "httpd",
    ];
    let image = Image::new(IMAGE)
        .of_host()
        .file("/bin/busybox", busybox)
        .file(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\nu:x:1234:4321::/home/u:/bin/sh\n",
        )
        .file("/etc/group", "root:x:0:\nextra:x:77:u\n")
        .file("/bin/script", "#!/bin/sh\necho \"script $*\"\n")
        .file("/bin/broken", "no program at all\n")
        .file("/bin/dangling", "#!/bin/nope\n")
        .file_with_mode("/bin/unexecutable", "#!/bin/sh\n", 0o644)
        .folder("/data")
        .folder("/mnt")
        .folder("/tmp")
        .env("PATH", "/usr/bin:/bin")
        .cmd(&["sh"]);
    applets.iter().fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox"))
}

/// The container's name: that of the test, which is the only one to use it.
fn name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("native").replace("::", "-")
}

/// Runs a container to its end.
fn run(bed: &Bed, docker: bool, runtime: &str, flags: &[&str], args: &[&str]) -> Output {
    let words = ["run", "--rm", "--runtime", runtime];
    if docker {
        let name = ["--name", &name(), "--hostname", "native", "--pull", "never"];
        bed.docker(&[&words, &name[..], flags, &[IMAGE], args].concat()).run()
    } else {
        bed.ctr(&[&words, flags, &[IMAGE, &name()], args].concat()).run()
    }
}

/// What differs from one container to the next, whoever runs it.
fn normal(text: &str) -> String {
    let mut normal = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let (digits, end) = match word.char_indices().next_back() {
            Some((at, c)) if !c.is_ascii_hexdigit() => word.split_at(at),
            _ => (word, ""),
        };
        normal.push_str(if digits.len() >= 32 { "ID" } else { digits });
        normal.push_str(end);
    }
    normal
}

/// Runs the same by both runtimes, and panics where a line differs. Returns Lighter's.
///
/// On a busy machine, runc's shim now and then loses what a container said last: it may say it again. Ours may not.
#[track_caller]
fn same(bed: &Bed, docker: bool, flags: &[&str], args: &[&str]) -> Output {
    let ours = run(bed, docker, RUNTIME, flags, args);
    let said = |output: &Output| [normal(&output.stdout), normal(&output.stderr)];
    let theirs = || run(bed, docker, RUNC, flags, args);
    let theirs = (0..2).map(|_| theirs()).find(|theirs| said(theirs) == said(&ours)).unwrap_or_else(theirs);
    let what = format!("{} {flags:?} {args:.60?}", if docker { "docker run" } else { "ctr run" });
    for (name, theirs, ours) in [("stdout", &theirs.stdout, &ours.stdout), ("stderr", &theirs.stderr, &ours.stderr)] {
        let (theirs, ours) = (normal(theirs), normal(ours));
        let only = |of: &str, other: &str| -> Vec<String> {
            of.lines().filter(|line| !other.lines().any(|l| l == *line)).map(str::to_owned).collect()
        };
        assert!(
            theirs == ours,
            "{what}: {name} differs\nonly under runc: {:#?}\nonly under Lighter: {:#?}\nrunc, {} lines:\n{theirs}\nLighter, {} lines:\n{ours}",
            only(&theirs, &ours),
            only(&ours, &theirs),
            theirs.lines().count(),
            ours.lines().count()
        );
    }
    assert_eq!(theirs.status, ours.status, "{what}\n{theirs}\n{ours}");
    ours
}

fn bed(suite: Suite, docker: bool) -> &'static Bed {
    let bed = Bed::get(suite);
    if docker {
        bed.docker_load(&image(bed));
    } else {
        bed.import(&image(bed));
    }
    bed
}

fn programs(suite: Suite) {
    for docker in [false, true] {
        let bed = bed(suite, docker);
        let same = |flags: &[&str], args: &[&str]| same(bed, docker, flags, args);
        assert_eq!(same(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]).expect(3).stdout, "out\n");
        same(&[], &["script", "a", "b c"]).ok();
        // Sorted: runc 1.1 and 1.3 do not agree on HOME's place.
        same(&["--env", "B=2", "--env", "A=x=y"], &["sh", "-c", "env | sort"]).ok();
        same(&[if docker { "--workdir" } else { "--cwd" }, "/made/here"], &["pwd"]).ok();
        same(&["--user", "1234:4321"], &["sh", "-c", "id; env; touch /data/x"]).expect(1);
        same(&["--user", "u"], &["sh", "-c", "id; env"]).ok();
        same(&["--user", "9999"], &["sh", "-c", "id; env"]).ok();
        // SIGPIPE ends it, as it ends any program that does not ask for another fate.
        let pipe = same(&[], &["sh", "-c", "yes | head -n 1; sh -c 'kill -PIPE $$'; echo $?"]).ok();
        assert_eq!(pipe.stdout, "y\n141\n");
    }
}

fn limits_of_what_it_may(suite: Suite) {
    let rows: [&[&str]; 9] = [
        &[],
        &["--user", "1234:4321"],
        &["--cap-drop", "ALL"],
        &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"],
        &["--cap-add", "SYS_ADMIN"],
        &["--security-opt", "no-new-privileges"],
        &["--security-opt", "seccomp=unconfined"],
        &["--ulimit", "nofile=100:200", "--read-only", "--tmpfs", "/tmp", "--pids-limit", "50"],
        &["--privileged", "--device-cgroup-rule", "c 10:200 rw"],
    ];
    let docker = bed(suite, true);
    for flags in rows {
        same(docker, true, flags, &["sh", "-c", PROBE]);
        if !flags.contains(&"--privileged") {
            same(docker, true, flags, &["sh", "-c", ATTEMPTS]);
        }
    }
    let ctr = bed(suite, false);
    let rows: [&[&str]; 6] = [
        &[],
        &["--seccomp"],
        &["--user", "1234"],
        &["--cap-drop", "CAP_CHOWN", "--allow-new-privs"],
        &["--read-only"],
        &["--privileged"],
    ];
    for flags in rows {
        same(ctr, false, flags, &["sh", "-c", PROBE]);
        if !flags.contains(&"--privileged") {
            same(ctr, false, flags, &["sh", "-c", ATTEMPTS]);
        }
    }
}

fn files(suite: Suite) {
    let bed = bed(suite, true);
    bed.sh("mkdir -p /srv/native && echo from the host >/srv/native/file").run().ok();
    let same = |flags: &[&str], script: &str| same(bed, true, flags, &["sh", "-c", script]);
    let (writable, read_only) = ("/srv/native:/data", "/srv/native:/data:ro");
    assert_eq!(same(&["--volume", read_only], "cat /data/file").ok().stdout, "from the host\n");
    same(&["--volume", read_only], "touch /data/new").expect(1);
    same(&["--volume", writable], "touch /data/new && rm /data/new").ok();
    same(&["--read-only"], "touch /new").expect(1);
    same(&["--read-only", "--tmpfs", "/tmp:size=1m"], "touch /tmp/new && dd if=/dev/zero of=/tmp/big bs=2M count=1");
    same(&["--volume", "/proc:/host-proc:ro", "--volume", "/:/host:ro"], "ls /host-proc/1/comm /host/etc/passwd").ok();
}

fn networks(suite: Suite) {
    let bed = bed(suite, true);
    for network in ["none", "host"] {
        same(bed, true, &["--network", network], &["sh", "-c", "ip -o addr | cut -d' ' -f2-6; cat /etc/resolv.conf"]);
    }
    bed.docker(&["network", "create", "--driver", "bridge", "native"]).run().ok();
    let seen =
        same(bed, true, &["--network", "native"], &["sh", "-c", "ip -o -4 addr show eth0 | cut -d' ' -f2,4-8"]).ok();
    assert!(seen.stdout.starts_with("eth0 "), "{seen}");
}

fn what_cannot_be_run(suite: Suite) {
    // Of the messages, which tell the runtime's name, the end.
    let rows = [
        ("nope", 127, r#"exec: "nope": executable file not found in $PATH"#),
        ("/bin/nope", 127, r#"exec: "/bin/nope": stat /bin/nope: no such file or directory"#),
        ("unexecutable", 127, r#"exec: "unexecutable": executable file not found in $PATH"#),
        ("/bin/unexecutable", 126, r#"exec: "/bin/unexecutable": permission denied"#),
        ("/bin", 126, r#"exec: "/bin": is a directory"#),
    ];
    let bed = bed(suite, true);
    for (program, status, message) in rows {
        for runtime in [RUNC, RUNTIME] {
            let flags = ["--annotation", "run.lighter.engine=native"];
            let output = run(bed, true, runtime, &flags, &[program]).expect(status);
            assert!(output.stderr.contains(message), "{runtime}\n{output}");
        }
    }
    // runc only finds out once the container runs, and says it on the container's own stderr.
    let rows = [("broken", "exec format error"), ("dangling", "no such file or directory")];
    for (program, message) in rows {
        let flags = ["--annotation", "run.lighter.engine=native"];
        let output = run(bed, true, RUNTIME, &flags, &[program]);
        assert!(output.status > 0 && output.stderr.contains(message), "{output}");
    }
}

/// What is added to a container is given what its own program is, no more and no less.
fn added_programs(suite: Suite) {
    let bed = bed(suite, true);
    let rows: [&[&str]; 7] = [
        &[],
        &["--user", "1234:4321"],
        &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"],
        &["--security-opt", "no-new-privileges", "--pids-limit", "50"],
        &["--security-opt", "seccomp=unconfined"],
        &["--ulimit", "nofile=100:200", "--read-only", "--tmpfs", "/tmp"],
        &["--privileged"],
    ];
    for flags in rows {
        let mut outcomes = Vec::new();
        for runtime in [RUNC, RUNTIME] {
            let flags = [&["--hostname", "native"], flags].concat();
            let kept = Kept::start(bed, runtime, &flags, "echo ready; exec sleep 1000");
            let exec = |flags: &[&str], args: &[&str]| {
                bed.docker(&[&["exec"], flags, &[&name()], args].concat()).stdin("typed\n").run()
            };
            let mut outcome: Vec<(i32, String, String)> = Vec::new();
            let mut add =
                |output: Output| outcome.push((output.status, normal(&output.stdout), normal(&output.stderr)));
            add(exec(&[], &["sh", "-c", &PROBE.replace("NSsid|", "")]));
            if !flags.contains(&"--privileged") {
                add(exec(&[], &["sh", "-c", ATTEMPTS]));
            }
            add(exec(&["--user", "u", "--env", "A=1", "--workdir", "/tmp"], &["sh", "-c", "id; env | sort; pwd"]));
            add(exec(&["--interactive"], &["cat"]));
            add(exec(&[], &["sh", "-c", "exit 42"]));
            for wrong in ["nope", "/bin/nope", "/bin/unexecutable", "/bin"] {
                add(exec(&[], &[wrong]));
            }
            if flags.is_empty() {
                add(exec(&["--privileged"], &["sh", "-c", "grep Cap /proc/self/status"]));
            }
            outcomes.push(outcome);
            drop(kept);
        }
        let [theirs, ours] = &outcomes[..] else { unreachable!("two runtimes") };
        for (theirs, ours) in theirs.iter().zip(ours) {
            assert_eq!((theirs.0, lines(&theirs.1)), (ours.0, lines(&ours.1)), "{flags:?}");
            assert_eq!(lines(&theirs.2), lines(&ours.2), "{flags:?}");
        }
    }
}

fn lines(text: &str) -> Vec<&str> {
    let of_runc = "OCI runtime exec failed: exec failed: unable to start container process: ";
    text.lines().map(|line| line.strip_prefix(of_runc).unwrap_or(line)).collect()
}

/// A container of busybox that Docker keeps.
struct Kept<'bed>(&'bed Bed);

impl<'bed> Kept<'bed> {
    #[track_caller]
    fn start(bed: &'bed Bed, runtime: &str, flags: &[&str], script: &str) -> Self {
        let words = ["run", "--detach", "--name", &name(), "--pull", "never", "--runtime", runtime];
        bed.docker(&[&words, flags, &[IMAGE, "sh", "-c", script]].concat()).run().ok();
        let kept = Self(bed);
        let deadline = Instant::now() + vm::patience(Duration::from_secs(20));
        while !kept.docker("logs", &[]).stdout.contains("ready") {
            assert!(Instant::now() < deadline, "{}", kept.docker("logs", &[]));
        }
        kept
    }

    #[track_caller]
    fn docker(&self, command: &str, flags: &[&str]) -> Output {
        self.0.docker(&[&[command], flags, &[&name()]].concat()).run()
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        let _ = self.0.docker(&["rm", "--force", &name()]).try_run();
    }
}

fn signals(suite: Suite) {
    let bed = bed(suite, true);
    let kept = |runtime, script| Kept::start(bed, runtime, &[], script);
    for runtime in [RUNC, RUNTIME] {
        let trapping = kept(runtime, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done");
        trapping.docker("stop", &[]).ok();
        assert_eq!(trapping.docker("wait", &[]).ok().stdout, "7\n", "{runtime}");
        assert_eq!(trapping.docker("logs", &[]).ok().stdout, "ready\nbye\n", "{runtime}");
        drop(trapping);
        // The first of a PID namespace ignores what it has no handler for.
        let stubborn = kept(runtime, "echo ready; exec sleep 1000");
        let begun = Instant::now();
        stubborn.docker("stop", &["--time", "1"]).ok();
        assert!(begun.elapsed() > Duration::from_secs(1), "{runtime}");
        assert_eq!(stubborn.docker("wait", &[]).ok().stdout, "137\n", "{runtime}");
        drop(stubborn);
        // Ends with all that it started.
        let many = kept(runtime, "sleep 1000 & sleep 1000 & echo ready; wait");
        let top = many.docker("top", &[]).ok();
        assert_eq!(top.stdout.matches("sleep 1000").count(), 4, "{runtime}\n{top}");
        let id = many.docker("inspect", &["--format", "{{.Id}}"]).ok().stdout;
        many.docker("kill", &[]).ok();
        assert_eq!(many.docker("wait", &[]).ok().stdout, "137\n", "{runtime}");
        drop(many);
        if runtime == RUNTIME {
            bed.assert_gone(id.trim());
        }
    }
}

fn memory_limit(suite: Suite) {
    let bed = bed(suite, true);
    let eat = "a=$(yes | head -c 200000000); echo survived";
    for flags in [&["--memory", "32m"][..], &["--memory", "32m", "--memory-swap", "32m"]] {
        for runtime in [RUNC, RUNTIME] {
            let output = run(bed, true, runtime, flags, &["sh", "-c", eat]);
            assert_eq!((output.status, output.stdout.as_str()), (137, ""), "{runtime}: {output}");
        }
    }
}

/// The runner's process is replaced: what is left is the program, to the byte.
fn memory_of_an_idle_container(suite: Suite) {
    let bed = bed(suite, true);
    let pss = |runtime| {
        let kept = Kept::start(bed, runtime, &[], "echo ready; exec sleep 1000");
        let pid = kept.docker("inspect", &["--format", "{{.State.Pid}}"]).ok().stdout;
        let read = |file: &str| std::fs::read_to_string(bed.path(format!("/proc/{}/{file}", pid.trim())));
        let exe = std::fs::read_link(bed.path(format!("/proc/{}/exe", pid.trim()))).expect("program of the container");
        assert!(exe.ends_with("busybox"), "{}", exe.display());
        let rollup = read("smaps_rollup").expect("memory of the container");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line of Rss");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes")
    };
    let (theirs, ours) = (pss(RUNC), pss(RUNTIME));
    assert!(ours < theirs + 200, "{ours} kB under Lighter, {theirs} kB under runc");
}

/// The same command runs both kinds: nothing but the entrypoint's bytes tells them apart.
fn beside_a_guest(suite: Suite) {
    let bed = bed(suite, false);
    let both = Image::new("docker.io/library/both:native")
        .of_host()
        .file("/app.wasm", lighter_tests::guests::wat("hello"))
        .file("/bin/busybox", std::fs::read(bed.path("/bin/busybox")).expect("busybox of the bed"));
    bed.import(&both);
    let run = |args: &[&str]| {
        bed.ctr(&[&["run", "--rm", "--runtime", RUNTIME, "docker.io/library/both:native", "both"], args].concat()).run()
    };
    assert_eq!(run(&["/app.wasm"]).ok().stdout, "hello\n");
    assert_eq!(run(&["/bin/busybox", "echo", "hello"]).ok().stdout, "hello\n");
}
