//! HTTP handlers behind a Service.

use lighter_tests::{
    Suite,
    kubernetes::{Cluster, Namespace},
    on_every_suite,
};
use serde_json::{Value, json};

use crate::{
    images,
    manifest::{container, deployment, pod, with},
};

on_every_suite!(no_request_is_lost);

/// While a new version takes over, and while replicas come and go.
fn no_request_is_lost(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("service");
    let image = cluster.image(&images::guests());
    namespace.apply(&[service(), server(&image, "one", 3)]);
    namespace.wait_rolled_out("server");
    let load = Load::start(&namespace, "http://$SERVER_SERVICE_HOST/");

    namespace.apply(&[server(&image, "two", 3)]);
    namespace.wait_rolled_out("server");
    let versions = namespace.list("pods", "app=server");
    let is_new = |pod: &&Value| pod["spec"]["containers"][0]["env"][0]["value"] == "two";
    let old = versions.iter().filter(|pod| !is_new(pod) && pod["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(old.count(), 0, "the old version is still there");

    namespace.apply(&[server(&image, "two", 30)]);
    namespace.wait_rolled_out("server");
    namespace.apply(&[server(&image, "two", 2)]);
    namespace.wait_rolled_out("server");
    namespace.eventually("28 replicas to be gone", || (namespace.list("pods", "app=server").len() == 2).then_some(()));
    load.end(&namespace);
}

/// A client that asks as fast as it can, a connection for each request, in a native pod.
pub(crate) struct Load;

impl Load {
    /// Starts it on a URL, which a shell reads, and waits for its first answers.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, url: &str) -> Load {
        let image = namespace.cluster().image(&images::busybox(namespace.cluster()));
        let script = "
            good=0 bad=0
            while [ ! -e /tmp/stop ]; do
              if wget -q -T 5 -O /tmp/answer \"$URL\" 2>/tmp/error && grep -q hello /tmp/answer; then
                good=$((good + 1))
                [ $good != 20 ] || echo started
              else
                bad=$((bad + 1))
                echo \"$(date): after $good: $(cat /tmp/error)\"
              fi
            done
            echo \"answered $good, failed $bad\"";
        let asks = container("load", &image, &["sh", "-c", &format!("URL={url}; {script}")]);
        let client = pod("load", "lighter", &[asks]);
        // By the node's own runtime: it is not what is tested.
        namespace.apply(&[with(client, json!({"spec": {"runtimeClassName": null}}))]);
        namespace.wait_ready("load");
        namespace.eventually("answers", || namespace.logs("load", "load").contains("started").then_some(()));
        Load
    }

    /// Panics unless all requests were answered.
    #[track_caller]
    pub(crate) fn end(self, namespace: &Namespace) {
        namespace.kubectl(&["exec", "load", "--", "sh", "-c", ": >/tmp/stop"]).run().ok();
        namespace.wait_phase("load", "Succeeded");
        let log = namespace.logs("load", "load");
        assert!(log.contains(", failed 0\n"), "{log}");
        println!("{}", log.trim());
    }
}

/// The Service of [`server`], on port 80.
pub(crate) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

/// A handler that is asked whether it is ready and alive. It serves on for a while when it is to go, as any server has to:
/// nodes learn of that no sooner than it does.
pub(crate) fn server(image: &str, version: &str, replicas: u32) -> Value {
    let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5});
    let handler = with(
        container("serve", image, &["/serve.wasm"]),
        json!({
            "env": [{"name": "VERSION", "value": version}],
            "ports": [{"containerPort": 8080}],
            "readinessProbe": probe,
            "livenessProbe": with(probe.clone(), json!({"periodSeconds": 5})),
            "lifecycle": {"preStop": {"exec": {"command": ["/sleep.wasm", "3"]}}},
        }),
    );
    deployment("server", "lighter", replicas, &[handler])
}
