//! The guest's bound on memory follows the container's limit.

use lighter_tests::{Bed, Cmd, Image, RUNTIME, Suite, guests, on_every_suite};
use serde_json::{Value, json};

use super::update::update;
use crate::cleanup::remove;

on_every_suite! { a_guest_may_grow_as_far_as_the_new_limit, what_is_added_has_the_bound_of_now }

const MIB: i64 = 1 << 20;
/// What is kept back from linear memory for the runner.
const HEADROOM: i64 = 16;

/// Both limits: with that of memory alone the kernel would not go above the other.
fn limit(mib: i64) -> Value {
    json!({"memory": {"limit": mib * MIB, "swap": mib * MIB}})
}

/// An image with a guest that waits, and one that grows.
fn image() -> Image {
    let image = Image::wasm("docker.io/library/grow:latest", guests::wat("sleep"));
    image.file("/grow.wasm", guests::p1("memory"))
}

/// Begins a container with a limit of 64 MiB.
fn run(bed: &Bed, id: &str, engine: &str, flags: &[&str], args: &[&str]) -> Cmd {
    let image = image();
    bed.import(&image);
    let engine = format!("run.lighter.engine={engine}");
    let run = ["run", "--runtime", RUNTIME, "--platform", "wasi/wasm", "--annotation", &engine];
    let limit = ["--memory-limit", "67108864"];
    bed.ctr(&[&run[..], &limit, flags, &[image.name(), id], args].concat())
}

/// What the guest says when it can't grow further. It begins with somewhat more than whole MiB, so that the last one does not
/// fit.
fn stops_at(mib: i64) -> String {
    format!("memory.grow failed at {} MiB\n", mib - HEADROOM - 1)
}

fn a_guest_may_grow_as_far_as_the_new_limit(suite: Suite) {
    let bed = Bed::get(suite);
    let id = "grow-wasmtime";
    let mut guest = run(bed, id, "wasmtime", &[], &["/grow.wasm", "again"]).spawn();
    guest.wait_for(&stops_at(64));
    update(bed, id, &limit(128)).expect("there is more");
    guest.write("again\n");
    guest.wait_for(&stops_at(128));
    // Nothing of memory: the bound stays.
    update(bed, id, &json!({"pids": {"limit": 100}})).expect("it is changed");
    guest.write("again\n");
    let twice = stops_at(128).repeat(2);
    guest.wait_for(&twice);
    guest.close_stdin();
    guest.wait().ok();
    remove(bed, id);
}

fn what_is_added_has_the_bound_of_now(suite: Suite) {
    let bed = Bed::get(suite);
    for engine in ["wasmtime", "wamr"] {
        let id = &format!("grow-exec-{engine}");
        run(bed, id, engine, &["--detach", "--null-io"], &[]).run().ok();
        for mib in [128, 96] {
            update(bed, id, &limit(mib)).expect("it is changed");
            let added = bed.ctr(&["tasks", "exec", "--exec-id", "grow", id, "/grow.wasm"]).run().ok();
            assert_eq!(added.stdout, stops_at(mib), "{engine}: {added}");
        }
        remove(bed, id);
    }
}
