//! Pods that are ended from outside.

use std::time::{Duration, Instant};

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::json;

use crate::{
    images,
    manifest::{container, native, pod, with},
};

on_every_suite!(deleted_within_grace, evicted, past_its_deadline);

/// After so many seconds, a pod that doesn't obey is killed.
const GRACE: u64 = 240;
/// How much longer than a pod of runc's it may take: on a busy machine, most of it is the kubelet's, which looks every ten seconds.
const MORE: Duration = Duration::from_secs(60);

/// Whatever they are doing, long before they would be killed, and about as soon as under runc.
fn deleted_within_grace(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("deleted");
    let (guests, busybox) = (cluster.image(&images::guests()), cluster.image(&images::busybox(cluster)));
    let obeys = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"];
    let kinds: [(&str, &str, &[&str]); 4] = [
        ("native", &busybox, &obeys),
        ("sleeps", &guests, &["/sleep.wasm"]),
        ("busy", &guests, &["/busy.wasm"]),
        ("serves", &guests, &["/serve.wasm"]),
    ];
    let more = json!({"spec": {"terminationGracePeriodSeconds": GRACE}});
    for (name, image, command) in kinds {
        let limits = json!({"resources": {"limits": {"cpu": "200m"}}});
        let pod = with(pod(name, "lighter", &[with(container("main", image, command), limits)]), more.clone());
        namespace.apply(&[if name == "native" { native(pod) } else { pod }]);
    }
    let took = kinds.map(|(name, ..)| {
        namespace.wait_ready(name);
        let start = Instant::now();
        namespace.kubectl(&["delete", "pod", name]).timeout(Duration::from_secs(2 * GRACE)).run().ok();
        println!("{name} took {:?} to go", start.elapsed());
        (name, start.elapsed())
    });
    for (name, time) in &took[1..] {
        assert!(*time < took[0].1 + MORE, "{name} took {time:?} to go, runc's pod {:?}", took[0].1);
    }
}

/// By the API, as a drain does.
fn evicted(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("evicted");
    let image = cluster.image(&images::guests());
    let guest = pod("evicted", "lighter", &[container("guest", &image, &["/sleep.wasm"])]);
    namespace.apply(&[with(guest, json!({"spec": {"terminationGracePeriodSeconds": GRACE}}))]);
    namespace.wait_ready("evicted");
    let start = Instant::now();
    let versions = cluster.kubectl(&["api-versions"]).run().ok().stdout;
    let version = if versions.lines().any(|line| line == "policy/v1") { "policy/v1" } else { "policy/v1beta1" };
    let eviction = json!({
        "apiVersion": version,
        "kind": "Eviction",
        "metadata": {"name": "evicted", "namespace": namespace.name()},
    });
    let path = format!("/api/v1/namespaces/{}/pods/evicted/eviction", namespace.name());
    cluster.kubectl(&["create", "--raw", &path, "-f", "-"]).stdin(eviction.to_string()).run().ok();
    namespace.wait("pod", "evicted", "to be gone", |pod| pod.is_null());
    assert!(start.elapsed() < Duration::from_secs(GRACE / 2), "it took {:?} to go", start.elapsed());
}

fn past_its_deadline(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("deadline");
    let image = cluster.image(&images::guests());
    let guest = pod("deadline", "lighter", &[container("guest", &image, &["/busy.wasm"])]);
    namespace.apply(&[with(guest, json!({"spec": {"activeDeadlineSeconds": 3}}))]);
    let pod = namespace.wait_phase("deadline", "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded", "{pod:#}");
}
