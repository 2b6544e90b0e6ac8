//! SIGKILL of each process involved ends in a clean state.

use lighter_tests::{Bed, Suite, on_every_suite};

use crate::cleanup::{import_sleeper, pid_of, remove, remove_ended, start, tasks, wait_for_status};

on_every_suite! {
    of_the_daemon,
    of_the_runner,
    of_containerd_while_tasks_run,
    of_containerd_while_a_task_ends,
    of_containerd_and_the_daemon,
}

/// Kills the daemon of a container that is alone in it.
pub(crate) fn kill_daemon(bed: &Bed, id: &str) {
    // The brackets keep the pattern from matching the command line that it is in.
    bed.sh(&format!("pkill -KILL --full '[c]ontainerd-shim-lighter-v1.* -id {id}'")).run().ok();
}

fn of_the_daemon(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = import_sleeper(&bed);
    start(&bed, &image, "orphan");
    let pid = pid_of(&bed, "orphan");
    kill_daemon(&bed, "orphan");
    // containerd calls the shim's `delete`, which must kill what the daemon can't any more.
    bed.sh(&format!("timeout 10 sh -c 'while [ -e /proc/{pid} ]; do sleep 0.05; done'")).run().ok();
    remove(&bed, "orphan");
    bed.assert_clean();
    start(&bed, &image, "orphan");
    wait_for_status(&bed, "orphan", "RUNNING");
    remove(&bed, "orphan");
    bed.assert_clean();
}

fn of_the_runner(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = import_sleeper(&bed);
    start(&bed, &image, "killed");
    bed.sh(&format!("kill -KILL {}", pid_of(&bed, "killed"))).run().ok();
    wait_for_status(&bed, "killed", "STOPPED");
    remove_ended(&bed, "killed", 137);
    bed.assert_clean();
}

fn of_containerd_while_tasks_run(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = import_sleeper(&bed);
    let ids = ["one", "two", "three"];
    for id in ids {
        start(&bed, &image, id);
    }
    let pids = ids.map(|id| pid_of(&bed, id));
    bed.kill_containerd();
    bed.start_containerd();
    for id in ids {
        wait_for_status(&bed, id, "RUNNING");
    }
    assert_eq!(ids.map(|id| pid_of(&bed, id)), pids);
    bed.ctr(&["tasks", "kill", "--signal", "SIGTERM", "one"]).run().ok();
    wait_for_status(&bed, "one", "STOPPED");
    for id in ids {
        remove(&bed, id);
    }
    bed.assert_clean();
}

fn of_containerd_while_a_task_ends(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = import_sleeper(&bed);
    start(&bed, &image, "ended");
    let pid = pid_of(&bed, "ended");
    bed.kill_containerd();
    bed.sh(&format!("kill -TERM {pid}; timeout 10 sh -c 'while [ -e /proc/{pid} ]; do sleep 0.05; done'")).run().ok();
    bed.start_containerd();
    // containerd forgets a task that ended meanwhile, and has its shim clean up, as runc's does.
    assert_eq!(tasks(&bed), []);
    bed.assert_clean();
    bed.ctr(&["containers", "rm", "ended"]).run().ok();
}

fn of_containerd_and_the_daemon(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = import_sleeper(&bed);
    start(&bed, &image, "lost");
    bed.kill_containerd();
    kill_daemon(&bed, "lost");
    bed.start_containerd();
    remove(&bed, "lost");
    bed.assert_clean();
}
