//! Containers that fail: what the cluster says of them.

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::{Value, json};

use crate::{
    images,
    manifest::{container, pod, with},
};

on_every_suite!(out_of_memory, crash_loop, what_is_no_module, no_such_image, failing_probe);

/// A native program is killed by the kernel. A guest's memory has a bound below the limit: it is told, and may go on.
fn out_of_memory(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("memory");
    let limits = json!({"resources": {"limits": {"memory": "64Mi"}}});
    let guest = with(container("memory", &cluster.image(&images::guests()), &["/memory.wasm"]), limits.clone());
    let fills = ["sh", "-c", "x=x; while :; do x=$x$x; done"];
    let native = with(container("memory", &cluster.image(&images::busybox(cluster)), &fills), limits);
    namespace.apply(&[pod("guest", "lighter", &[guest]), pod("native", "lighter", &[native])]);
    namespace.wait_phase("guest", "Succeeded");
    let log = namespace.logs("guest", "memory");
    assert!(log.contains("memory.grow failed at "), "{log}");
    let native = namespace.wait_phase("native", "Failed");
    let ended = terminated(&native);
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{ended}");
}

fn crash_loop(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("crash");
    let crashes = pod("crash", "lighter", &[container("guest", &cluster.image(&images::guests()), &["/trap.wasm"])]);
    namespace.apply(&[with(crashes, json!({"spec": {"restartPolicy": "Always"}}))]);
    let pod = namespace.wait("pod", "crash", "to be in a crash loop", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff" && status["restartCount"].as_u64() >= Some(2)
    });
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 134, "{last}");
    // The end before this one.
    let previous = namespace.kubectl(&["logs", "--previous", "crash"]).run().ok().stdout;
    assert!(previous.contains("the guest panics on purpose"), "{previous}");
}

fn what_is_no_module(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("refused");
    let image = cluster.image(&images::guests());
    namespace.apply(&[
        pod("text", "lighter", &[container("guest", &image, &["/data/file"])]),
        pod("missing", "lighter", &[container("guest", &image, &["/no.wasm"])]),
    ]);
    for (name, says) in [("text", "/data/file"), ("missing", "/no.wasm")] {
        let pod = namespace.wait("pod", name, "to be refused", |pod| {
            let state = &pod["status"]["containerStatuses"][0]["state"];
            !state["waiting"]["message"].is_null() || !state["terminated"]["message"].is_null()
        });
        let state = &pod["status"]["containerStatuses"][0]["state"];
        let message = state["waiting"]["message"].as_str().or_else(|| state["terminated"]["message"].as_str());
        assert!(message.is_some_and(|message| message.contains(says)), "{name}: {state}");
    }
}

fn no_such_image(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("image");
    let absent =
        with(container("guest", "docker.io/library/absent:k8s", &["/a.wasm"]), json!({"imagePullPolicy": "Never"}));
    namespace.apply(&[pod("absent", "lighter", &[absent])]);
    namespace.wait("pod", "absent", "to wait for its image", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    });
}

/// What doesn't answer is restarted.
fn failing_probe(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("probe");
    let probe = json!({"httpGet": {"path": "/status/500", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2});
    let serve = container("serve", &cluster.image(&images::guests()), &["/serve.wasm"]);
    let pod = pod("probe", "lighter", &[with(serve, json!({"livenessProbe": probe}))]);
    namespace.apply(&[with(pod, json!({"spec": {"restartPolicy": "Always"}}))]);
    namespace.wait("pod", "probe", "to be restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1)
    });
}

fn terminated(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["terminated"]
}
