//! Volumes of pods: what Kubernetes puts into them, and what containers share.

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::json;

use crate::{
    images,
    manifest::{container, pod, with},
};

on_every_suite!(config_map_update_is_seen, secret_and_environment, shared_with_init_and_sidecar);

/// By a guest that has run all the time.
fn config_map_update_is_seen(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("config");
    let image = cluster.image(&images::guests());
    let config = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"key": text}});
    let mounts = json!({"volumeMounts": [{"name": "config", "mountPath": "/config"}]});
    let reads = with(container("serve", &image, &["/serve.wasm"]), mounts);
    let volumes = json!({"spec": {"volumes": [{"name": "config", "configMap": {"name": "config"}}]}});
    namespace.apply(&[config("before"), with(pod("reader", "lighter", &[reads]), volumes)]);
    namespace.wait_ready("reader");
    let read = || namespace.proxied("reader", 8080, "/read?path=/config/key");
    assert_eq!(namespace.eventually("the first value", || Some(read()).filter(|text| !text.is_empty())), "before");
    namespace.apply(&[config("after")]);
    namespace.eventually("the second value", || (read() == "after").then_some(()));
}

fn secret_and_environment(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("secret");
    let image = cluster.image(&images::guests());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"key": "of the hold"},
    });
    let environment = json!({"env": [
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]});
    let mounts = json!({"volumeMounts": [{"name": "secret", "mountPath": "/secret", "readOnly": true}]});
    let containers = [
        with(container("shows", &image, &["/show.wasm"]), environment),
        with(container("reads", &image, &["/files.wasm", "read", "/secret/key"]), mounts.clone()),
        with(container("writes", &image, &["/files.wasm", "write", "/secret/key", "mine"]), mounts),
    ];
    let volumes = json!({"spec": {"volumes": [{"name": "secret", "secret": {"secretName": "secret"}}]}});
    namespace.apply(&[secret, with(pod("secret", "lighter", &containers), volumes)]);
    // The one that writes can't.
    namespace.wait_phase("secret", "Failed");
    let shown = namespace.logs("secret", "shows");
    assert!(shown.contains("env SECRET=of the hold\n") && shown.contains("env POD=secret\n"), "{shown}");
    assert_eq!(namespace.logs("secret", "reads"), "of the hold\n");
    assert!(namespace.logs("secret", "writes").starts_with("error: "), "{}", namespace.logs("secret", "writes"));
}

/// An init container and a guest beside a native program: three containers of one class, one volume, one network.
fn shared_with_init_and_sidecar(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("mixed");
    let (guests, busybox) = (cluster.image(&images::guests()), cluster.image(&images::busybox(cluster)));
    let mounts = json!({"volumeMounts": [{"name": "hold", "mountPath": "/hold"}]});
    let init = [
        with(container("native", &busybox, &["sh", "-c", "echo first >/hold/file"]), mounts.clone()),
        with(container("guest", &guests, &["/files.wasm", "append", "/hold/file", "second\n"]), mounts.clone()),
    ];
    let asks = "cat /hold/file; until wget -q -O- http://127.0.0.1:8080/read?path=/hold/file; do sleep 1; done";
    let containers = [
        with(container("serve", &guests, &["/serve.wasm"]), mounts.clone()),
        with(container("sidecar", &busybox, &["sh", "-c", asks]), mounts),
    ];
    let changes = json!({"spec": {"initContainers": init, "volumes": [{"name": "hold", "emptyDir": {}}]}});
    namespace.apply(&[with(pod("mixed", "lighter", &containers), changes)]);
    namespace.wait("pod", "mixed", "to have a sidecar that has ended", |pod| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let sidecar = statuses.into_iter().find(|status| status["name"] == "sidecar").unwrap_or_default();
        sidecar["state"]["terminated"]["exitCode"] == 0
    });
    assert_eq!(namespace.logs("mixed", "sidecar"), "first\nsecond\n".repeat(2));
}
