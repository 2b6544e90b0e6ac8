//! What goes wrong, and that the node is then what it was.

use std::{thread, time::Duration};

use lighter_tests::{
    Suite,
    cri::{Cri, PAUSE},
    on_every_suite,
};

use crate::bench::{CONFIG, install, installer, node, read, restarts, traces, write};

on_every_suite!(
    handlers_that_do_not_work_are_taken_back,
    a_containerd_that_does_not_come_back_is_put_back,
    what_was_wrong_before_is_told,
    a_node_without_the_pause_image,
    a_node_without_a_configuration,
    nothing_that_restarts_containerd,
    two_at_once,
    killed_at_any_time,
);

fn handlers_that_do_not_work_are_taken_back(suite: Suite) {
    let bed = node(suite);
    let before = traces(&bed);
    // It runs, and does nothing right.
    bed.sh("mkdir /tmp/bad; cp -a /usr/local/bin/. /tmp/bad; rm /tmp/bad/lighter-native; \
         printf '#!/bin/sh\\n[ \"$1\" = --version ]' >/tmp/bad/lighter-native; chmod +x /tmp/bad/lighter-native")
        .run()
        .ok();
    let failed = installer(&bed, &["install", "--from", "/tmp/bad"]).run().expect(1);
    assert!(failed.stderr.contains("the handler \"lighter\" does not answer"), "{failed}");
    assert_eq!(traces(&bed), before);
    assert!(Cri::connect(&bed).pod("runc", "after").run().is_ready());
    // As an upgrade: what was there works on.
    install(&bed);
    let installed = traces(&bed);
    let failed = installer(&bed, &["upgrade", "--from", "/tmp/bad"]).run().expect(1);
    assert!(failed.stderr.contains("switch back"), "{failed}");
    assert_eq!(traces(&bed), installed);
    assert!(Cri::connect(&bed).pod("lighter", "after-upgrade").run().is_ready());
}

fn a_containerd_that_does_not_come_back_is_put_back(suite: Suite) {
    let bed = node(suite);
    let before = traces(&bed);
    // The first restart fails.
    let once = "[ -e /run/bed/once ] && exec sh /etc/restart-containerd; touch /run/bed/once; echo broken >&2; exit 7";
    let words = ["lighter-node", "--restart-command", once, "install", "--from", "/usr/local/bin"];
    let failed = bed.cmd(&words).timeout(Duration::from_secs(180)).run().expect(1);
    assert!(failed.stderr.contains("restart containerd by") && failed.stderr.contains("broken"), "{failed}");
    assert_eq!(traces(&bed), before);
    assert!(Cri::connect(&bed).pod("runc", "after").run().is_ready());
}

fn what_was_wrong_before_is_told(suite: Suite) {
    let bed = node(suite);
    let (good, count) = (read(&bed, CONFIG), restarts(&bed));
    let plugin = match suite {
        Suite::Trixie => "io.containerd.grpc.v1.cri",
        Suite::Forky => "io.containerd.cri.v1.runtime",
    };
    let taken = format!(
        "{good}[plugins.\"{plugin}\".containerd.runtimes.lighter-wamr]\nruntime_type = \"io.containerd.runc.v2\"\n"
    );
    let table = [
        // As Docker's packages of containerd have it.
        ("disabled_plugins = [\"cri\"]\n".to_owned(), "disables CRI"),
        (format!("{good}[plugins"), "was broken already"),
        (format!("{good}oom_score = \"high\"\n[grpc]\nuid = \"none\"\n"), "was broken already"),
        (taken, "the handler \"lighter-wamr\" is there already and runs io.containerd.runc.v2"),
    ];
    for (text, expected) in table {
        write(&bed, CONFIG, &text);
        let before = traces(&bed);
        let failed = installer(&bed, &["install", "--from", "/usr/local/bin"]).run().expect(1);
        assert!(failed.stderr.contains(expected), "{failed}");
        assert_eq!(traces(&bed), before, "{expected}");
    }
    write(&bed, CONFIG, &good);
    let before = traces(&bed);
    // A file system that nothing can be written to, and one that allows no programs.
    let mounted = |options: &str| {
        format!(
            "mkdir -p /tmp/small; unshare -m sh -c 'mount -t tmpfs -o {options} none /tmp/small && exec lighter-node --prefix \
             /tmp/small/l --restart-command false install --from /usr/local/bin'"
        )
    };
    for (options, expected) in [("ro", "choose another with --prefix"), ("noexec", "does not run on this node")] {
        let failed = bed.sh(&mounted(options)).run().expect(1);
        assert!(failed.stderr.contains(expected), "{failed}");
    }
    assert_eq!((traces(&bed), restarts(&bed)), (before, count));
}

fn a_node_without_the_pause_image(suite: Suite) {
    let bed = node(suite);
    write(&bed, CONFIG, &read(&bed, CONFIG).replace(PAUSE, "127.0.0.1:9/pause:none"));
    bed.kill_containerd();
    bed.start_containerd();
    let before = traces(&bed);
    let failed = installer(&bed, &["install", "--from", "/usr/local/bin"]).run().expect(1);
    for piece in ["the handler \"lighter\" does not answer: ", "failed to get sandbox image"] {
        assert!(failed.stderr.contains(piece), "{failed}");
    }
    assert_eq!(traces(&bed), before);
}

/// Here no pod starts with containerd's defaults; that the lines are taken for what they are is seen before.
fn a_node_without_a_configuration(suite: Suite) {
    let bed = node(suite);
    bed.sh(&format!("rm {CONFIG}")).run().ok();
    bed.kill_containerd();
    bed.start_containerd();
    let before = traces(&bed);
    let failed = installer(&bed, &["install", "--from", "/usr/local/bin"]).run().expect(1);
    assert!(failed.stderr.contains("run a pod by lighter") && failed.stderr.contains("does not answer"), "{failed}");
    assert_eq!(traces(&bed), before);
}

fn nothing_that_restarts_containerd(suite: Suite) {
    let bed = node(suite);
    let before = traces(&bed);
    let failed = bed.cmd(&["lighter-node", "install", "--from", "/usr/local/bin"]).run().expect(1);
    assert!(failed.stderr.contains("no unit of systemd's is known"), "{failed}");
    assert_eq!(traces(&bed), before);
}

fn two_at_once(suite: Suite) {
    let bed = node(suite);
    let count = restarts(&bed);
    let both = [(); 2].map(|()| installer(&bed, &["--json", "install", "--from", "/usr/local/bin"]).spawn());
    let both = both.map(|running| running.wait().ok());
    let changed = both.iter().filter(|output| output.stdout.contains("\"changed\": true")).count();
    assert_eq!((changed, restarts(&bed)), (1, count + 1), "{both:?}");
    installer(&bed, &["status"]).run().ok();
}

fn killed_at_any_time(suite: Suite) {
    let bed = node(suite);
    let before = traces(&bed);
    for milliseconds in [20, 60, 150, 300, 500, 900, 1500] {
        let running = installer(&bed, &["install", "--from", "/usr/local/bin"]).spawn();
        thread::sleep(Duration::from_millis(milliseconds));
        // Kills its process group.
        drop(running);
        bed.sh("pid=$(pidof lighter-node) && kill -9 $pid; while pidof lighter-node >/dev/null; do sleep 0.05; done")
            .run();
        // What restarts containerd may have been killed as well.
        bed.sh("kill -0 $(cat /run/bed/containerd.pid) 2>/dev/null || sh /etc/restart-containerd").run().ok();
    }
    install(&bed);
    installer(&bed, &["status"]).run().ok();
    installer(&bed, &["uninstall"]).run().ok();
    assert_eq!(traces(&bed), before);
}
