//! Many starts and many tasks, and then nothing.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use lighter_tests::{Bed, ENTRYPOINT, Image, PLATFORM, RUNTIME, Suite, guests, on_every_suite};

use crate::cleanup::{import_sleeper, remove, remove_ended, start, tasks, wait_for_status};

on_every_suite! { a_hundred_starts_eight_at_a_time, fifty_at_once }

/// Calls `act` with each number below `total`, from so many threads.
fn in_parallel(total: usize, threads: usize, act: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < total) {
                    act(number);
                }
            });
        }
    });
}

fn a_hundred_starts_eight_at_a_time(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = Image::wasm("docker.io/library/hello:latest", guests::p1("hello"));
    bed.import(&image);
    in_parallel(100, 8, |number| {
        let id = format!("start-{number}");
        let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, image.name(), &id, ENTRYPOINT];
        assert_eq!(bed.ctr(&run).run().ok().stdout, "hello from wasm\n");
    });
    bed.assert_clean();
}

fn fifty_at_once(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = import_sleeper(&bed);
    let id = |number: usize| format!("sleeper-{number}");
    in_parallel(50, 8, |number| start(&bed, &image, &id(number)));
    let running = tasks(&bed);
    assert_eq!(running.len(), 50);
    assert!(running.iter().all(|(_, _, status)| status == "RUNNING"), "{running:?}");
    // Half by SIGTERM and a plain delete, half by force.
    in_parallel(50, 8, |number| {
        if number % 2 == 0 {
            bed.ctr(&["tasks", "kill", "--signal", "SIGTERM", &id(number)]).run().ok();
            wait_for_status(&bed, &id(number), "STOPPED");
            remove_ended(&bed, &id(number), 143);
        } else {
            remove(&bed, &id(number));
        }
    });
    bed.assert_clean();
}
