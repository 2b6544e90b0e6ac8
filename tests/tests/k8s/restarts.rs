//! The node's daemons restarted under load.

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::Value;

use crate::{
    images,
    manifest::{self, container, deployment},
    services::{Load, probed, server, service},
};

on_every_suite!(kubelet_and_containerd);

/// How much longer no request may be answered than by native pods, whose Service a kubelet empties as well: one that starts
/// takes all pods for not ready until it has asked them.
const LONGER: u64 = 30;

/// Neither a pod nor a request to one is lost; those to a Service are answered as soon as a native one's; and what is asked of a
/// pod afterwards works.
fn kubelet_and_containerd(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let Some(bed) = cluster.own() else { return };
    let namespace = cluster.namespace_alone("restarts");
    let (image, busybox) = (cluster.image(&images::guests()), cluster.image(&images::busybox(cluster)));
    let httpd = "mkdir /tmp/www; echo hello >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
    let mut native = deployment("native", "", 3, &[probed(container("serve", &busybox, &["sh", "-c", httpd]))]);
    native["spec"]["template"] = manifest::native(native["spec"]["template"].take());
    namespace.apply(&[service("server"), server(&image, "one", 3), service("native"), native]);
    namespace.wait_rolled_out("server");
    namespace.wait_rolled_out("native");
    let before = containers(&namespace.list("pods", "app=server"));
    assert_eq!(before.len(), 3);
    let one = namespace.list("pods", "app=server").remove(0);
    let name = one["metadata"]["name"].as_str().expect("a name");
    let address = one["status"]["podIP"].as_str().expect("an address");
    let to_pod = Load::named(&namespace, "to-pod", &format!("http://{address}:8080/"));
    let to_service = Load::named(&namespace, "to-service", "http://$SERVER_SERVICE_HOST/");
    let to_native = Load::named(&namespace, "to-native", "http://$NATIVE_SERVICE_HOST/");

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
    namespace.wait_rolled_out("server");
    namespace.wait_rolled_out("native");
    to_pod.end(&namespace);
    let (ours, native) = (to_service.longest(&namespace), to_native.longest(&namespace));
    assert!(ours <= native + LONGER, "no answer from the Service for {ours} s, from a native one's for {native} s");
    assert_eq!(containers(&namespace.list("pods", "app=server")), before);
    // They can still be replaced.
    namespace.apply(&[server(&image, "two", 3)]);
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
