//! Pause and resume.

use lighter_tests::{Bed, Suite, on_every_suite};

use super::{Kind, RUNC, RUNTIME, events, native_image, topics_of, works};
use crate::cleanup::{pid_of, remove, remove_ended, wait_for_status};

on_every_suite! {
    a_paused_task_stands_still_until_it_is_resumed,
    what_is_paused_can_be_killed,
    what_is_paused_can_be_removed,
    the_daemon_of_a_paused_task_is_killed,
    events_tell_of_it,
}

fn a_paused_task_stands_still_until_it_is_resumed(suite: Suite) {
    let bed = Bed::get(suite);
    for kind in Kind::ALL {
        let id = &kind.id("pause");
        kind.start_busy(bed, id, &[]);
        assert!(works(bed, id), "{id} runs");
        bed.ctr(&["tasks", "pause", id]).run().ok();
        wait_for_status(bed, id, "PAUSED");
        assert!(!works(bed, id), "{id} stands still");
        let exec = ["tasks", "exec", "--exec-id", "e", id, if kind.wasm { "/app.wasm" } else { "echo" }];
        let refused = bed.ctr(&exec).run().expect(1);
        assert!(refused.stderr.contains("cannot exec in a paused state"), "{id}: {refused}");
        bed.ctr(&["tasks", "resume", id]).run().ok();
        wait_for_status(bed, id, "RUNNING");
        assert!(works(bed, id), "{id} goes on");
        // Neither is done twice.
        assert_ne!(bed.ctr(&["tasks", "resume", id]).run().status, 0, "{id} runs already");
        remove(bed, id);
        bed.assert_gone(id);
    }
}

fn what_is_paused_can_be_killed(suite: Suite) {
    let bed = Bed::get(suite);
    for kind in Kind::ALL {
        let id = &kind.id("pause-kill");
        kind.start_busy(bed, id, &[]);
        bed.ctr(&["tasks", "pause", id]).run().ok();
        bed.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).run().ok();
        wait_for_status(bed, id, "STOPPED");
        remove_ended(bed, id, 137);
        bed.assert_gone(id);
    }
}

fn what_is_paused_can_be_removed(suite: Suite) {
    let bed = Bed::get(suite);
    for kind in Kind::ALL {
        let id = &kind.id("pause-remove");
        kind.start_busy(bed, id, &[]);
        bed.ctr(&["tasks", "pause", id]).run().ok();
        remove(bed, id);
        bed.assert_gone(id);
    }
}

/// What can't even die must not be left behind by who cleans up.
fn the_daemon_of_a_paused_task_is_killed(suite: Suite) {
    let bed = Bed::fresh(suite);
    for kind in Kind::ALL.into_iter().filter(|kind| kind.runtime == RUNTIME) {
        let id = &kind.id("pause-crash");
        kind.start_busy(&bed, id, &[]);
        let pid = pid_of(&bed, id);
        bed.ctr(&["tasks", "pause", id]).run().ok();
        // The brackets keep the pattern from matching the command line that it is in.
        bed.sh(&format!("pkill -KILL --full '[c]ontainerd-shim-lighter-v1.* -id {id}'")).run().ok();
        bed.sh(&format!("timeout 10 sh -c 'while [ -e /proc/{pid} ]; do sleep 0.05; done'")).run().ok();
        remove(&bed, id);
        bed.assert_clean();
    }
}

fn events_tell_of_it(suite: Suite) {
    let bed = Bed::get(suite);
    let events = events(bed, &native_image(bed));
    for kind in Kind::ALL {
        let id = &kind.id("pause-events");
        kind.start_busy(bed, id, &[]);
        bed.ctr(&["tasks", "pause", id]).run().ok();
        bed.ctr(&["tasks", "resume", id]).run().ok();
        remove(bed, id);
        events.wait_for(&format!(r#"/containers/delete {{"id":"{id}""#));
        let mut topics = topics_of(&events.stdout(), id);
        if kind.runtime == RUNC {
            // Its shim may end before it has published the last.
            topics.retain(|topic| topic != "delete");
            topics.push("delete".to_owned());
        }
        assert_eq!(topics, ["create", "start", "paused", "resumed", "exit", "delete"], "{id}");
    }
}
