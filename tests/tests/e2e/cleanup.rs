//! Beds of one test, and the tasks in them.

use std::time::{Duration, Instant};

use lighter_tests::{Bed, ENTRYPOINT, Image, PLATFORM, RUNTIME, guests, vm};

/// How long a change of a task may take to show.
const SHOWS_WITHIN: Duration = Duration::from_secs(10);

/// Imports guest `sleep`, and returns the image's name.
#[track_caller]
pub(crate) fn import_sleeper(bed: &Bed) -> String {
    let image = Image::wasm("docker.io/library/sleeper:latest", guests::wat("sleep"));
    bed.import(&image);
    image.name().to_owned()
}

/// `ctr run --detach`.
#[track_caller]
pub(crate) fn start(bed: &Bed, image: &str, id: &str) {
    let run = ["run", "--detach", "--null-io", "--runtime", RUNTIME, "--platform", PLATFORM, image, id, ENTRYPOINT];
    bed.ctr(&run).run().ok();
}

/// Task, the bed's pid of it and its status, as `ctr tasks ls` tells them.
#[track_caller]
pub(crate) fn tasks(bed: &Bed) -> Vec<(String, u32, String)> {
    let listed = bed.ctr(&["tasks", "ls"]).run().ok().stdout;
    let task = |line: &str| {
        let mut words = line.split_whitespace();
        let (id, pid, status) = (words.next()?, words.next()?, words.next()?);
        Some((id.to_owned(), pid.parse().ok()?, status.to_owned()))
    };
    // The first line, of titles, has no number.
    listed.lines().filter_map(task).collect()
}

/// The pid of a task's init in the bed.
#[track_caller]
pub(crate) fn pid_of(bed: &Bed, id: &str) -> u32 {
    let tasks = tasks(bed);
    let task = tasks.iter().find(|(name, _, _)| name == id);
    task.unwrap_or_else(|| panic!("no task {id} in {tasks:?}")).1
}

/// Waits until `ctr tasks ls` shows this status.
#[track_caller]
pub(crate) fn wait_for_status(bed: &Bed, id: &str, expected: &str) {
    let deadline = Instant::now() + vm::patience(SHOWS_WITHIN);
    loop {
        let tasks = tasks(bed);
        if tasks.iter().any(|(name, _, status)| name == id && status == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "task {id} is not {expected}: {tasks:?}");
    }
}

/// `ctr tasks rm --force` and `ctr containers rm`.
#[track_caller]
pub(crate) fn remove(bed: &Bed, id: &str) {
    bed.ctr(&["tasks", "rm", "--force", id]).run();
    bed.ctr(&["containers", "rm", id]).run().ok();
}

/// Removes a task that has ended and its container; `ctr` tells the exit code in passing.
#[track_caller]
pub(crate) fn remove_ended(bed: &Bed, id: &str, expected: i32) {
    let removed = bed.ctr(&["tasks", "rm", id]).run().ok();
    assert!(removed.stderr.contains(&format!("exit code {expected}\"")), "expected {expected}\n{removed}");
    bed.ctr(&["containers", "rm", id]).run().ok();
}
