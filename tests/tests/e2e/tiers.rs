//! A large module's first start runs on baseline code, and the next on what was made in the background meanwhile.

use std::{
    fs,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Image, Suite, guests, on_every_suite};

use crate::case::ctr_run;

on_every_suite! {
    a_large_module_starts_on_baseline_code_and_gets_better,
    what_winch_lacks_is_compiled_well_at_once,
    an_optimiser_that_fails_is_not_tried_at_every_start,
    a_small_module_is_compiled_well_at_once,
}

const CACHE: &str = "/var/lib/lighter/cache";
/// Bytes that make a module large.
const LARGE: usize = 2 << 20;
/// Until the background work is done on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `sched_setscheduler` calls SCHED_IDLE. Source: sched(7).
const IDLE: &str = "5";

/// The names of what a bed's cache has of compiled code, without the digest: `.cwasm`, `.baseline.cwasm`, a note of
/// failure, or what is in the making.
fn entries(bed: &Bed) -> Vec<String> {
    let mut names = Vec::new();
    for folder in fs::read_dir(bed.path(CACHE)).into_iter().flatten().flatten() {
        if folder.file_name().to_string_lossy().starts_with("wasmtime") {
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".checked") {
                    continue;
                }
                names.push(name.split_at(name.len().min(64)).1.to_owned());
            }
        }
    }
    names.sort();
    names
}

#[track_caller]
fn wait_for_entries(bed: &Bed, expected: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = entries(bed);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected:?} in the cache, found {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Notes each call of the compiler: its options, and its scheduling policy.
fn watch_compiler(bed: &Bed, then: &str) {
    let script = format!(
        "mkdir -p /run/watched
         cp -a /usr/local/bin/lighter-compile /run/watched/lighter-compile
         cat >/run/watched/wrapper <<'END'
#!/bin/sh
echo \"$(cut -d ' ' -f 41 /proc/$$/stat) $*\" >>/run/watched/calls
{then}
exec /run/watched/lighter-compile \"$@\"
END
         chmod +x /run/watched/wrapper
         mount --bind /run/watched/wrapper /usr/local/bin/lighter-compile"
    );
    bed.sh(&script).run().ok();
}

fn calls(bed: &Bed) -> Vec<String> {
    let calls = fs::read_to_string(bed.path("/run/watched/calls")).unwrap_or_default();
    calls.lines().map(str::to_owned).collect()
}

fn log(bed: &Bed) -> String {
    fs::read_to_string(bed.path("/var/log/bed/containerd.log")).expect("containerd's log")
}

fn hello(name: &str) -> Image {
    Image::wasm(&format!("docker.io/library/{name}:latest"), guests::padded(guests::p1("hello"), LARGE))
}

fn a_large_module_starts_on_baseline_code_and_gets_better(suite: Suite) {
    let bed = Bed::fresh(suite);
    // Long enough to see what is there meanwhile.
    watch_compiler(&bed, "[ -n \"$*\" ] || while [ ! -e /run/watched/go ]; do sleep 0.05; done");
    let image = hello("large");
    assert_eq!(ctr_run(&bed, &image, "large", &[], &[]).ok().stdout, "hello from wasm\n");
    // The container is gone, whatever is done for the next.
    bed.assert_gone("/large");
    wait_for_entries(&bed, &[".baseline.cwasm", ".lock", ".tmp"]);
    assert!(log(&bed).contains("runs on baseline code"), "{}", log(&bed));
    // Meanwhile nobody waits, and nobody starts the same work again.
    assert_eq!(ctr_run(&bed, &image, "large", &[], &[]).ok().stdout, "hello from wasm\n");
    bed.sh("touch /run/watched/go").run().ok();
    wait_for_entries(&bed, &[".cwasm"]);
    assert_eq!(ctr_run(&bed, &image, "large", &[], &[]).ok().stdout, "hello from wasm\n");
    let calls = calls(&bed);
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls[0].ends_with(" --baseline") && !calls[0].starts_with(IDLE), "{calls:?}");
    assert_eq!(calls[1].trim(), IDLE, "{calls:?}");
    bed.assert_clean();
}

fn what_winch_lacks_is_compiled_well_at_once(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed, "");
    let image = Image::wasm("docker.io/library/tail-call:latest", guests::padded(guests::wat("tail-call"), LARGE));
    for _ in 0..2 {
        ctr_run(&bed, &image, "tail-call", &[], &[]).expect(42);
    }
    wait_for_entries(&bed, &[".baseline.failed", ".cwasm"]);
    assert!(log(&bed).contains("no baseline code"), "{}", log(&bed));
    assert_eq!(calls(&bed).len(), 2, "{:?}", calls(&bed));
}

fn an_optimiser_that_fails_is_not_tried_at_every_start(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed, "[ -n \"$*\" ] || { echo 'no memory left' >&2; exit 1; }");
    let image = hello("unlucky");
    assert_eq!(ctr_run(&bed, &image, "unlucky", &[], &[]).ok().stdout, "hello from wasm\n");
    wait_for_entries(&bed, &[".baseline.cwasm", ".failed"]);
    assert_eq!(ctr_run(&bed, &image, "unlucky", &[], &[]).ok().stdout, "hello from wasm\n");
    assert!(log(&bed).contains("no memory left"), "{}", log(&bed));
    assert_eq!(calls(&bed).len(), 2, "{:?}", calls(&bed));
}

fn a_small_module_is_compiled_well_at_once(suite: Suite) {
    let bed = Bed::fresh(suite);
    watch_compiler(&bed, "");
    let image = Image::wasm("docker.io/library/small:latest", guests::p1("hello"));
    ctr_run(&bed, &image, "small", &[], &[]).ok();
    assert_eq!(entries(&bed), [".cwasm"]);
    assert_eq!(calls(&bed).len(), 1, "{:?}", calls(&bed));
}
