//! What `kubectl` shows of a pod, and how it gets into one.

use lighter_tests::{
    Suite,
    kubernetes::{Cluster, Namespace},
    on_every_suite,
};
use serde_json::{Value, json};

use crate::{
    images,
    manifest::{container, pod, with},
};

on_every_suite!(logs, exec, attach, port_forward, usage, describe_shows_the_trap);

/// A pod of one container that is there to stay.
fn stays(cluster: &'static Cluster, name: &str, changes: Value) -> Namespace {
    let namespace = cluster.namespace(name);
    let image = cluster.image(&images::guests());
    let sleeps = with(container("guest", &image, &["/sleep.wasm"]), changes);
    namespace.apply(&[pod(name, "lighter", &[sleeps])]);
    namespace.wait_ready(name);
    namespace
}

fn logs(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = stays(cluster, "logs", json!({}));
    let follow = namespace.kubectl(&["logs", "--follow", "logs"]).spawn();
    follow.wait_for("ready\n");
    let stamped = namespace.kubectl(&["logs", "--timestamps", "--tail=1", "logs"]).run().ok().stdout;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z ready\n"), "{stamped}");
    namespace.kubectl(&["delete", "pod", "logs", "--wait=false"]).run().ok();
    // The container's end is the log's.
    assert_eq!(follow.wait().ok().stdout, "ready\n");
}

/// Another module of the image, with its streams and its exit code.
fn exec(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = stays(cluster, "exec", json!({"env": [{"name": "PORT", "value": "of call"}]}));
    let shown = namespace.kubectl(&["exec", "exec", "--", "/show.wasm", "a b"]).run().ok().stdout;
    assert!(shown.contains("arg[1]=a b\n") && shown.contains("env PORT=of call\n"), "{shown}");
    let echoed = namespace.kubectl(&["exec", "-i", "exec", "--", "/cat.wasm"]).stdin("through the pod\n").run().ok();
    assert!(echoed.stdout.contains("through the pod"), "{echoed}");
    let exited = namespace.kubectl(&["exec", "exec", "--", "/exit.wasm", "7"]).run();
    assert!(exited.status != 0 && exited.stderr.contains("exit code 7"), "{exited}");
    let missing = namespace.kubectl(&["exec", "exec", "--", "/no.wasm"]).run();
    assert!(missing.status != 0 && missing.stderr.contains("/no.wasm"), "{missing}");
}

fn attach(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("attach");
    let image = cluster.image(&images::guests());
    let cat = with(container("cat", &image, &["/cat.wasm"]), json!({"stdin": true, "stdinOnce": true}));
    namespace.apply(&[pod("attach", "lighter", &[cat])]);
    namespace.wait_ready("attach");
    let attached = namespace.kubectl(&["attach", "-i", "attach"]).stdin("into the first process\n").run().ok();
    assert!(attached.stdout.contains("into the first process"), "{attached}");
    // Its input has ended with the client's.
    namespace.wait_phase("attach", "Succeeded");
}

fn port_forward(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("forward");
    let image = cluster.image(&images::guests());
    namespace.apply(&[pod("forward", "lighter", &[container("serve", &image, &["/serve.wasm"])])]);
    namespace.wait_ready("forward");
    let port = lighter_tests::free_port();
    let forward = namespace.kubectl(&["port-forward", "pod/forward", &format!("{port}:8080")]).spawn();
    forward.wait_for("Forwarding from 127.0.0.1");
    for _ in 0..3 {
        let answered = cluster.fetch(&format!("http://127.0.0.1:{port}/"));
        assert_eq!(answered.run().ok().stdout, "hello from wasi:http\n");
    }
}

/// What a metrics server reads.
fn usage(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = stays(cluster, "usage", json!({}));
    let node = namespace.get("pod", "usage")["spec"]["nodeName"].as_str().expect("the pod's node").to_owned();
    let summary = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    // The kubelet measures now and then.
    let memory = namespace.eventually("usage of the container", || {
        let stats = cluster.kubectl(&["get", "--raw", &summary]).run().ok().stdout;
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        let pods = stats["pods"].as_array()?;
        let pod = pods.iter().find(|pod| pod["podRef"]["namespace"] == namespace.name())?;
        let container = &pod["containers"][0];
        container["cpu"]["usageCoreNanoSeconds"].as_u64().filter(|cpu| *cpu > 0)?;
        container["memory"]["workingSetBytes"].as_u64().filter(|memory| *memory > 0)
    });
    assert!(memory < 64 << 20, "a sleeping guest uses {memory} bytes");
}

fn describe_shows_the_trap(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("trap");
    let image = cluster.image(&images::guests());
    namespace.apply(&[pod("trap", "lighter", &[container("guest", &image, &["/trap.wasm"])])]);
    namespace.wait_phase("trap", "Failed");
    let described = namespace.kubectl(&["describe", "pod", "trap"]).run().ok().stdout;
    for text in ["Exit Code:    134", "wasm backtrace", "unreachable"] {
        assert!(described.contains(text), "no {text:?} in\n{described}");
    }
    // Rust's own words are the guest's.
    assert!(namespace.logs("trap", "guest").contains("the guest panics on purpose"));
}
