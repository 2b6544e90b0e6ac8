//! The compile cache: a module is compiled once, and never by code that others could have placed there.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
};

use lighter_tests::{Bed, Cmd, ENTRYPOINT, Image, Output, PLATFORM, RUNTIME, Running, Suite, guests, on_every_suite};

use crate::{
    case::{Client, ctr_run},
    crash::kill_daemon,
};

on_every_suite! {
    a_second_start_compiles_nothing,
    a_hundred_first_starts_compile_once,
    a_damaged_entry_is_made_again,
    an_entry_of_another_module_does_not_run,
    a_folder_that_others_can_write_is_refused,
    the_compiler_is_outside_of_the_pods_limits,
    many_modules_compile_a_few_at_a_time,
    who_waits_for_a_compiler_can_be_killed,
    who_waits_for_a_compiler_can_be_given_up,
}

const CACHE: &str = "/var/lib/lighter/cache";

/// Every entry below a folder: path, inode and time of last change.
fn entries(folder: &Path) -> Vec<(PathBuf, u64, i64)> {
    let mut entries = Vec::new();
    for item in fs::read_dir(folder).into_iter().flatten() {
        let path = item.expect("an item of the cache").path();
        if path.is_dir() {
            entries.extend(self::entries(&path));
        } else {
            let metadata = fs::metadata(&path).expect("an entry of the cache");
            entries.push((path, metadata.ino(), metadata.mtime_nsec() + metadata.mtime() * 1_000_000_000));
        }
    }
    entries.sort();
    entries
}

/// The one entry that a bed's cache holds.
#[track_caller]
fn only_entry(bed: &Bed) -> PathBuf {
    let entries = entries(&bed.path(CACHE));
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].0.clone()
}

fn hello() -> Image {
    Image::wasm("docker.io/library/hello:latest", guests::p1("hello"))
}

#[track_caller]
fn run_hello(bed: &Bed) -> Output {
    ctr_run(bed, &hello(), "hello", &[], &[])
}

/// Puts a script in the compiler's place that notes each call, and the caller's cgroups and limits.
fn watch_compiler(bed: &Bed) {
    bed.sh("mkdir -p /run/watched
         cp -a /usr/local/bin/lighter-compile /run/watched/lighter-compile
         cat >/run/watched/wrapper <<'END'
#!/bin/sh
echo called >>/run/watched/calls
cat /proc/self/cgroup >/run/watched/cgroup
exec /run/watched/lighter-compile \"$@\"
END
         chmod +x /run/watched/wrapper
         mount --bind /run/watched/wrapper /usr/local/bin/lighter-compile")
        .run()
        .ok();
}

fn calls(bed: &Bed) -> usize {
    fs::read_to_string(bed.path("/run/watched/calls")).map_or(0, |calls| calls.lines().count())
}

fn a_second_start_compiles_nothing(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed);
    run_hello(&bed).ok();
    let first = entries(&bed.path(CACHE));
    assert_eq!(first.len(), 1, "{first:?}");
    run_hello(&bed).ok();
    assert_eq!(entries(&bed.path(CACHE)), first);
    // The same module in another image, for Docker.
    let image = hello().file("/other", "file");
    Client::Docker.run(&bed, &image, "hello", &[], &[]).run().ok();
    assert_eq!(entries(&bed.path(CACHE)), first);
    assert_eq!(calls(&bed), 1);
}

fn a_hundred_first_starts_compile_once(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed);
    let image = hello();
    bed.import(&image);
    thread::scope(|scope| {
        for number in 0..100 {
            let (bed, image) = (&bed, &image);
            scope.spawn(move || {
                let id = format!("first-{number}");
                let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, image.name(), &id, ENTRYPOINT];
                assert_eq!(bed.ctr(&run).run().ok().stdout, "hello from wasm\n");
            });
        }
    });
    assert_eq!(calls(&bed), 1);
    only_entry(&bed);
    bed.assert_clean();
}

fn a_damaged_entry_is_made_again(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed);
    run_hello(&bed).ok();
    let entry = only_entry(&bed);
    let sound = fs::read(&entry).expect("the entry");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 0xff;
    let foreign = fs::read(bed.path("/usr/bin/busybox")).expect("an ELF file of others");
    for (number, damaged) in [&flipped[..], &sound[..sound.len() / 2], b"", &foreign].into_iter().enumerate() {
        fs::write(&entry, damaged).expect("damage the entry");
        assert_eq!(run_hello(&bed).ok().stdout, "hello from wasm\n");
        assert_eq!(calls(&bed), number + 2);
        assert_eq!(fs::read(only_entry(&bed)).expect("the entry").len(), sound.len());
    }
}

/// As a copy or a restored backup under a wrong name would be.
fn an_entry_of_another_module_does_not_run(suite: Suite) {
    let bed = Bed::fresh(suite);
    run_hello(&bed).ok();
    let hello = only_entry(&bed);
    let other = Image::wasm("docker.io/library/other:latest", guests::wat("exit42"));
    ctr_run(&bed, &other, "other", &[], &[]).expect(42);
    let entries = entries(&bed.path(CACHE));
    let other = entries.iter().find(|(path, _, _)| *path != hello).expect("an entry for the other module");
    fs::copy(&other.0, &hello).expect("replace the entry");
    assert_eq!(run_hello(&bed).ok().stdout, "hello from wasm\n");
}

fn a_folder_that_others_can_write_is_refused(suite: Suite) {
    let bed = Bed::fresh(suite);
    run_hello(&bed).ok();
    fs::set_permissions(bed.path(CACHE), fs::Permissions::from_mode(0o777)).expect("open the cache to all");
    let refused = run_hello(&bed);
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.stderr.contains(CACHE), "{refused}");
    fs::set_permissions(bed.path(CACHE), fs::Permissions::from_mode(0o700)).expect("close the cache");
    run_hello(&bed).ok();
    bed.assert_clean();
}

fn the_compiler_is_outside_of_the_pods_limits(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed);
    // Enough for a guest to run in, not for a compiler.
    let image = Image::wasm("docker.io/library/memory:latest", guests::p2("show"));
    Client::Docker.run(&bed, &image, "small", &["--memory", "12m"], &[]).run().ok();
    assert_eq!(calls(&bed), 1);
    let cgroups = fs::read_to_string(bed.path("/run/watched/cgroup")).expect("the compiler's cgroups");
    assert!(!cgroups.contains("docker"), "{cgroups}");
}

/// As when a node gets pods of many images that it has never seen.
fn many_modules_compile_a_few_at_a_time(suite: Suite) {
    let bed = Bed::fresh(suite);
    // Notes when a compiler begins and ends, but for those by the idle policy, which nobody waits for.
    bed.sh("mkdir -p /run/watched /etc/lighter
         echo 'compilers = 2' >/etc/lighter/config.toml
         cp -a /usr/local/bin/lighter-compile /run/watched/lighter-compile
         cat >/run/watched/wrapper <<'END'
#!/bin/sh
[ \"$(cut -d ' ' -f 41 /proc/$$/stat)\" = 5 ] && exec /run/watched/lighter-compile \"$@\"
echo begins >>/run/watched/calls
sleep 0.2
/run/watched/lighter-compile \"$@\"
code=$?
echo ends >>/run/watched/calls
exit $code
END
         chmod +x /run/watched/wrapper
         mount --bind /run/watched/wrapper /usr/local/bin/lighter-compile")
        .run()
        .ok();
    // Half of them are small, half so large that they start on baseline code.
    let images: Vec<Image> = (0..12)
        .map(|number: usize| {
            let module = guests::padded(guests::p1("hello"), number + ((number % 2) << 20));
            Image::wasm(&format!("docker.io/library/module-{number}:latest"), module)
        })
        .collect();
    images.iter().for_each(|image| bed.import(image));
    thread::scope(|scope| {
        for (number, image) in images.iter().enumerate() {
            let bed = &bed;
            scope.spawn(move || {
                let id = format!("module-{number}");
                let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, image.name(), &id, ENTRYPOINT];
                assert_eq!(bed.ctr(&run).run().ok().stdout, "hello from wasm\n");
            });
        }
    });
    let calls = fs::read_to_string(bed.path("/run/watched/calls")).expect("calls of the compiler");
    let at_work = calls.lines().scan(0_usize, |now, line| {
        *now = if line == "begins" { *now + 1 } else { *now - 1 };
        Some(*now)
    });
    assert_eq!(at_work.max(), Some(2), "{calls}");
    assert_eq!(calls.lines().count(), 2 * images.len(), "{calls}");
    bed.assert_clean();
    let left: Vec<_> =
        fs::read_dir(bed.path(CACHE)).expect("the cache").flatten().map(|item| item.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("compiler")), "{left:?}");
}

fn who_waits_for_a_compiler_can_be_killed(suite: Suite) {
    let bed = Bed::fresh(suite);
    let Queue { busy, waiting, image } = Queue::of(&bed);
    for (id, running) in [("waiting", waiting), ("busy", busy)] {
        kill_daemon(&bed, id);
        assert_ne!(running.wait().status, 0, "{id}");
        bed.ctr(&["containers", "rm", id]).run();
    }
    bed.assert_clean();
    assert_eq!(run(&bed, &image, "after").run().ok().stdout, "hello from wasm\n");
}

/// As a kubelet gives up what took too long: nothing of it is to go on, and to come to life later.
fn who_waits_for_a_compiler_can_be_given_up(suite: Suite) {
    let bed = Bed::fresh(suite);
    let Queue { busy, waiting, .. } = Queue::of(&bed);
    for (id, running, left) in [("waiting", waiting, 1), ("busy", busy, 0)] {
        drop(running);
        let gone = format!("[ $(pgrep --full \"[l]ighter-wasmtime create\" | wc -l) = {left} ]");
        bed.sh(&format!("timeout 60 sh -c 'until {gone}; do sleep 0.05; done'")).run().ok();
        bed.sh(&format!("until ctr containers rm {id}; do sleep 0.1; done")).run().ok();
    }
    // These are ctr's, which was killed.
    bed.sh("rm -r /run/containerd/fifo/*").run().ok();
    bed.assert_clean();
}

/// A start that has the only compiler, and one that waits for it.
struct Queue {
    busy: Running,
    waiting: Running,
    /// Of the one that waits.
    image: Image,
}

impl Queue {
    fn of(bed: &Bed) -> Queue {
        bed.sh("mkdir -p /etc/lighter; echo 'compilers = 1' >/etc/lighter/config.toml").run().ok();
        let image = |name: &str, module| Image::wasm(&format!("docker.io/library/{name}:latest"), module);
        let [slow, image] = [image("busy", guests::javascript("greet")), image("waiting", guests::p1("hello"))];
        [&slow, &image].into_iter().for_each(|image| bed.import(image));
        let busy = run(bed, &slow, "busy").spawn();
        // Stopped, it is busy until it is killed.
        bed.sh("timeout 60 sh -c 'until pkill -STOP --exact lighter-compile; do :; done'").run().ok();
        let waiting = run(bed, &image, "waiting").spawn();
        let both = "[ $(pgrep --full \"[l]ighter-wasmtime create\" | wc -l) = 2 ]";
        bed.sh(&format!("timeout 60 sh -c 'until {both}; do sleep 0.05; done'; sleep 0.5")).run().ok();
        assert_eq!(bed.sh("pgrep --exact lighter-compile | wc -l").run().ok().stdout.trim(), "1");
        assert!(!waiting.is_over() && !busy.is_over());
        Queue { busy, waiting, image }
    }
}

fn run(bed: &Bed, image: &Image, id: &str) -> Cmd {
    bed.ctr(&["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, image.name(), id, ENTRYPOINT])
}
