//! The node's daemons restarted under load.

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::Value;

use crate::{
    images,
    services::{Load, server, service},
};

on_every_suite!(kubelet_and_containerd);

/// Neither a pod nor a request is lost, and what is asked of a pod afterwards works.
fn kubelet_and_containerd(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let Some(bed) = cluster.own() else { return };
    let namespace = cluster.namespace_alone("restarts");
    let image = cluster.image(&images::guests());
    namespace.apply(&[service(), server(&image, "one", 5)]);
    namespace.wait_rolled_out("server");
    let before = containers(&namespace.list("pods", "app=server"));
    assert_eq!(before.len(), 5);
    // One pod, not the Service: a kubelet that starts takes all for not ready until it has asked them.
    let one = namespace.list("pods", "app=server").remove(0);
    let name = one["metadata"]["name"].as_str().expect("a name");
    let address = one["status"]["podIP"].as_str().expect("an address");
    let load = Load::start(&namespace, &format!("http://{address}:8080/"));

    Cluster::kill_kubelet(bed);
    Cluster::start_kubelet(bed);
    bed.kill_containerd();
    bed.start_containerd();
    // Both at once, and in the other order.
    Cluster::kill_kubelet(bed);
    bed.kill_containerd();
    bed.start_containerd();
    Cluster::start_kubelet(bed);

    namespace.eventually("exec", || {
        let shown = namespace.kubectl(&["exec", name, "--", "/hello.wasm"]).run();
        shown.stdout.contains("hello from wasm").then_some(())
    });
    load.end(&namespace);
    assert_eq!(containers(&namespace.list("pods", "app=server")), before);
    // They can still be replaced.
    namespace.apply(&[server(&image, "two", 5)]);
    namespace.wait_rolled_out("server");
}

/// The containers that run in these pods, and how often they were restarted.
fn containers(pods: &[Value]) -> Vec<(String, u64)> {
    let of = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        (status["containerID"].to_string(), status["restartCount"].as_u64().unwrap_or(u64::MAX))
    };
    let mut all: Vec<_> = pods.iter().map(of).collect();
    all.sort();
    all
}
