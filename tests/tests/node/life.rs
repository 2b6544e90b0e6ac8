//! Install, upgrade, uninstall.

use lighter_tests::{
    Bed, Suite,
    cri::{
        Cri,
        api::{IdMapping, NamespaceMode, StatusRequest},
    },
    on_every_suite,
};

use crate::bench::{CONFIG, install, installer, node, read, restarts, sleeper, traces, without, write};

on_every_suite!(
    it_comes_and_goes_without_a_trace,
    pods_run_through_an_upgrade,
    a_node_is_reached_through_its_root,
    systemd_is_asked_to_restart,
    systemd_is_asked_again_where_a_restart_failed,
    what_it_can_is_announced,
    runtimes_that_are_there_by_default_stay,
);

fn it_comes_and_goes_without_a_trace(suite: Suite) {
    let bed = node(suite);
    let before = (traces(&bed), restarts(&bed));
    let missing = installer(&bed, &["status"]).run().expect(3);
    assert!(missing.stdout.contains("not installed"), "{missing}");
    installer(&bed, &["upgrade", "--from", "/usr/local/bin"]).run().expect(3);

    let installed = install(&bed);
    assert!(installed.stdout.contains("is ready"), "{installed}");
    assert_eq!(restarts(&bed), before.1 + 1);
    {
        let cri = Cri::connect(&bed);
        for handler in ["lighter", "lighter-wasmtime", "lighter-wamr"] {
            let pod = cri.pod(handler, handler).run();
            assert!(
                pod.container("c", &sleeper()).command(&["/hello.wasm"]).start().expect(0).contains("hello from wasm")
            );
        }
    }
    // Again: nothing is done, and nothing restarted.
    let config = read(&bed, CONFIG);
    let again = installer(&bed, &["--json", "install", "--from", "/usr/local/bin"]).run().ok();
    assert!(again.stdout.contains("\"ready\": true") && again.stdout.contains("\"changed\": false"), "{again}");
    assert_eq!((read(&bed, CONFIG), restarts(&bed)), (config, before.1 + 1));
    installer(&bed, &["status"]).run().ok();

    installer(&bed, &["uninstall"]).run().ok();
    assert_eq!(traces(&bed), before.0);
    let refused = Cri::connect(&bed).pod("lighter", "gone").try_run().err().expect("the handler is gone");
    assert!(refused.message().contains("lighter"), "{refused}");
    bed.assert_clean();
}

fn pods_run_through_an_upgrade(suite: Suite) {
    let bed = node(suite);
    install(&bed);
    let cri = Cri::connect(&bed);
    let pod = cri.pod("lighter-wamr", "old").run();
    let old = pod.container("c", &sleeper()).start();
    old.wait_for("ready");

    // Another build, by a byte that no program reads.
    bed.sh("mkdir /tmp/new; cp -a /usr/local/bin/. /tmp/new; echo >>/tmp/new/lighter-wamr").run().ok();
    let before = restarts(&bed);
    let upgraded = installer(&bed, &["--json", "upgrade", "--from", "/tmp/new"]).run().ok();
    assert_eq!(restarts(&bed), before, "{upgraded}");
    let versions = bed.sh("ls /opt/lighter/versions").run().ok().stdout;
    assert_eq!(versions.lines().count(), 2, "{upgraded}");

    // The old pod runs, and what joins it is run by its own programs.
    assert!(pod.is_ready());
    let joined = old.exec_sync(&["/hello.wasm"], 10).expect("exec by the old programs");
    assert_eq!((joined.exit_code, joined.stdout), (0, b"hello from wasm\n".to_vec()));
    let new = cri.pod("lighter-wamr", "new").run();
    assert!(new.container("c", &sleeper()).command(&["/hello.wasm"]).start().expect(0).contains("hello from wasm"));

    let refused = installer(&bed, &["uninstall"]).run().expect(1);
    assert!(refused.stderr.contains("2 pods still run by Lighter"), "{refused}");
    old.stop(5).expect("stop");
    drop(old);
    drop((pod, new));
    let cleaned = installer(&bed, &["--json", "install", "--from", "/tmp/new"]).run().ok();
    let left = bed.sh("ls /opt/lighter/versions").run().ok().stdout;
    assert_eq!(left.lines().count(), 1, "{cleaned}");
    assert_ne!(versions.lines().next().zip(versions.lines().last()), None);
    installer(&bed, &["uninstall"]).run().ok();
}

/// As in a pod: the node's root is a folder, and its programs are run in there.
fn a_node_is_reached_through_its_root(suite: Suite) {
    let bed = node(suite);
    let before = traces(&bed);
    let script = |command: &str| {
        format!(
            "mkdir -p /tmp/host; unshare -m sh -ec 'mount --rbind / /tmp/host; exec lighter-node --host-root /tmp/host \
             --restart-command \"sh /etc/restart-containerd\" {command}'"
        )
    };
    bed.sh(&script("install --from /usr/local/bin")).run().ok();
    let config = bed.sh("containerd config dump").run().ok().stdout;
    assert!(config.contains("/opt/lighter/bin/containerd-shim-wamr-v1"), "{config}");
    {
        let cri = Cri::connect(&bed);
        let pod = cri.pod("lighter", "through").run();
        assert!(pod.container("c", &sleeper()).command(&["/hello.wasm"]).start().expect(0).contains("hello from wasm"));
    }
    bed.sh(&script("uninstall")).run().ok();
    assert_eq!(traces(&bed), before);
}

fn systemd_is_asked_to_restart(suite: Suite) {
    let bed = node(suite);
    systemctl(&bed, "case $1 in is-active) echo active;; restart) sh /etc/restart-containerd;; esac");
    bed.cmd(&["lighter-node", "install", "--from", "/usr/local/bin"]).run().ok();
    let asked = read(&bed, "/run/bed/systemctl");
    assert_eq!(asked, "is-active containerd.service\nrestart containerd.service\n");
}

/// What stands for systemd's.
#[track_caller]
fn systemctl(bed: &Bed, does: &str) {
    write(bed, "/usr/bin/systemctl", &format!("#!/bin/sh\necho \"$*\" >>/run/bed/systemctl\n{does}\n"));
    bed.sh("chmod +x /usr/bin/systemctl").run().ok();
}

/// A unit that did not come up is not active, and is the one to restart all the same.
fn systemd_is_asked_again_where_a_restart_failed(suite: Suite) {
    let bed = node(suite);
    let before = traces(&bed);
    let does = "cd /run/bed\n\
        case $1 in\n\
        is-active) [ -e down ] || exec echo active; echo activating; exit 3;;\n\
        restart) [ -e once ] && rm -f down && exec sh /etc/restart-containerd; touch once down; \
        pid=$(cat containerd.pid); kill $pid; while [ -e /proc/$pid ]; do sleep 0.05; done; echo 'Job for containerd.service failed' >&2; exit 1;;\n\
        esac";
    systemctl(&bed, does);
    let failed = bed.cmd(&["lighter-node", "install", "--from", "/usr/local/bin"]).run().expect(1);
    assert!(failed.stderr.contains("Job for containerd.service failed"), "{failed}");
    assert_eq!(traces(&bed), before);
    assert!(Cri::connect(&bed).pod("runc", "after").run().is_ready());
}

/// A kubelet allows a pod what containerd has from `-info`, which containerd 1.7 asks nobody for.
fn what_it_can_is_announced(suite: Suite) {
    let bed = node(suite);
    install(&bed);
    let cri = Cri::connect(&bed);
    let status = cri.call(async |runtime| runtime.status(StatusRequest { verbose: false }).await).expect("status");
    for name in ["lighter", "lighter-wasmtime", "lighter-wamr"] {
        let handler = status.runtime_handlers.iter().find(|handler| handler.name == name);
        let features = handler.and_then(|handler| handler.features.as_ref());
        let features = features.map(|features| (features.user_namespaces, features.recursive_read_only_mounts));
        assert_eq!(features, (suite == Suite::Forky).then_some((true, true)), "{name}");
    }
    let ids = vec![IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
    let pod = cri.pod("lighter-wamr", "users").namespaces(|namespaces| {
        let users = namespaces.userns_options.get_or_insert_default();
        users.set_mode(NamespaceMode::Pod);
        (users.uids, users.gids) = (ids.clone(), ids);
    });
    let pod = pod.run();
    let guest = pod.container("c", &sleeper()).start();
    guest.wait_for("ready");
    let pids = format!("find /sys/fs/cgroup -path '*{}/cgroup.procs' -exec cat {{}} +", guest.id());
    let process =
        bed.sh(&format!("cd /proc/$({pids} | sort -n | head -n 1); grep ^Uid status; tr '\\0' '\\n' <cmdline")).run();
    let process = process.ok().stdout;
    // Root of the pod, and the engine that the shim's path names.
    assert!(process.starts_with("Uid:\t200000\t") && process.contains("lighter-wamr"), "{process}");
}

/// Packages of containerd bring a configuration that names no runtime.
fn runtimes_that_are_there_by_default_stay(suite: Suite) {
    let bed = node(suite);
    write(&bed, CONFIG, &without(&read(&bed, CONFIG), ".runtimes.runc"));
    bed.kill_containerd();
    bed.start_containerd();
    let before = traces(&bed);
    let ran = |handler: &str| {
        let cri = Cri::connect(&bed);
        let pod = cri.pod(handler, handler).run();
        assert!(pod.is_ready(), "{handler}");
    };
    ran("runc");
    install(&bed);
    ran("runc");
    ran("lighter");
    installer(&bed, &["uninstall"]).run().ok();
    assert_eq!(traces(&bed), before);
    ran("runc");
}
