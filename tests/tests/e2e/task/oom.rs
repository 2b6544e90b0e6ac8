//! The kernel kills for want of memory: the event comes before the exit, and tells whether there was one.

use lighter_tests::{Bed, Image, RUNTIME, Suite, guests, on_every_suite, vm};

use super::{RUNC, events, native_image, topics_of};
use crate::cleanup::{remove, wait_for_status};

on_every_suite! {
    of_an_init,
    of_a_process_beside_it,
    not_of_what_is_killed_by_a_person,
    not_of_a_guest_whose_memory_fails_to_grow,
    of_guests_that_have_too_much_together,
}

/// Reads a line without end into memory.
const GREEDY: [&str; 2] = ["tail", "/dev/zero"];
const LIMIT: [&str; 2] = ["--memory-limit", "33554432"];

fn of_an_init(suite: Suite) {
    let bed = Bed::get(suite);
    let image = native_image(bed);
    let events = events(bed, &image);
    for (id, runtime) in [("oom-init", RUNTIME), ("oom-init-runc", RUNC)] {
        let run = ["run", "--rm", "--runtime", runtime];
        bed.ctr(&[&run[..], &LIMIT, &[image.name(), id], &GREEDY].concat()).run().expect(137);
        events.wait_for(&format!(r#"/containers/delete {{"id":"{id}""#));
        let seen = events.stdout();
        let topics = topics_of(&seen, id);
        if runtime == RUNTIME {
            assert_eq!(topics, ["create", "start", "oom", "exit", "delete"], "{seen}");
        } else if !bed.path("/sys/fs/cgroup/cgroup.controllers").exists() {
            // In v2 it may miss it.
            assert!(topics.iter().any(|topic| topic == "oom"), "{seen}");
        }
    }
}

fn of_a_process_beside_it(suite: Suite) {
    let bed = Bed::get(suite);
    let image = native_image(bed);
    let events = events(bed, &image);
    let id = "oom-beside";
    let run = ["run", "--detach", "--null-io", "--runtime", RUNTIME];
    bed.ctr(&[&run[..], &LIMIT, &[image.name(), id]].concat()).run().ok();
    for turn in 1..=2 {
        let exec = ["tasks", "exec", "--exec-id", "greedy", id];
        bed.ctr(&[&exec[..], &GREEDY].concat()).run().expect(137);
        wait_for_status(bed, id, "RUNNING");
        let told = || topics_of(&events.stdout(), id).iter().filter(|topic| *topic == "oom").count();
        assert!(events.prints(&format!(r#"/tasks/oom {{"container_id":"{id}"}}"#)), "{}", events.stdout());
        let deadline = std::time::Instant::now() + vm::patience(std::time::Duration::from_secs(5));
        while told() < turn && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(told(), turn, "each is told once\n{}", events.stdout());
    }
    remove(bed, id);
}

fn not_of_what_is_killed_by_a_person(suite: Suite) {
    let bed = Bed::get(suite);
    let image = native_image(bed);
    let events = events(bed, &image);
    let id = "oom-none";
    let run = ["run", "--detach", "--null-io", "--runtime", RUNTIME];
    bed.ctr(&[&run[..], &LIMIT, &[image.name(), id]].concat()).run().ok();
    bed.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).run().ok();
    wait_for_status(bed, id, "STOPPED");
    remove(bed, id);
    events.wait_for(&format!(r#"/tasks/delete {{"container_id":"{id}""#));
    assert_eq!(topics_of(&events.stdout(), id), ["create", "start", "exit", "delete"]);
}

/// The guest is told first, by a `memory.grow` that fails.
fn not_of_a_guest_whose_memory_fails_to_grow(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/oom-guest:latest", guests::p1("memory"));
    let events = events(bed, &image);
    let id = "oom-guest";
    let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", "wasi/wasm"];
    let output = bed.ctr(&[&run[..], &["--memory-limit", "67108864"], &[image.name(), id]].concat()).run().ok();
    assert!(output.stdout.starts_with("memory.grow failed at "), "{output}");
    events.wait_for(&format!(r#"/tasks/delete {{"container_id":"{id}""#));
    assert_eq!(topics_of(&events.stdout(), id), ["create", "start", "exit", "delete"]);
}

/// Each has the bound for itself: what is added to a container shares its limit with those in it.
fn of_guests_that_have_too_much_together(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/oom-guests:latest", guests::p1("memory"));
    let events = events(bed, &image);
    let id = "oom-guests";
    let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", "wasi/wasm", "--memory-limit", "67108864"];
    // It keeps what it has, and waits for a line.
    let first = bed.ctr(&[&run[..], &[image.name(), id, "/app.wasm", "again"]].concat()).spawn();
    first.wait_for("memory.grow failed at ");
    bed.ctr(&["tasks", "exec", "--exec-id", "second", id, "/app.wasm"]).run().expect(137);
    first.wait().expect(137);
    events.wait_for(&format!(r#"/containers/delete {{"id":"{id}""#));
    let topics = topics_of(&events.stdout(), id);
    let at = |topic: &str| topics.iter().position(|seen| seen == topic);
    assert!(at("oom").is_some() && at("oom") < at("exit"), "{topics:?}");
}
