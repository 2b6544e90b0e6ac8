//! HTTP handlers behind a Service.

use lighter_tests::{
    Suite,
    kubernetes::{Cluster, Namespace},
    on_every_suite,
};
use serde_json::{Value, json};

use crate::{
    images,
    manifest::{container, deployment, native, pod, with},
};

on_every_suite!(no_request_is_lost, no_request_is_lost_by_a_hook);

/// While a new version takes over, and while replicas come and go.
fn no_request_is_lost(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("service");
    let image = cluster.image(&images::guests());
    let server = |version, replicas| with(server(&image, version, replicas), lingers());
    namespace.apply(&[service("server"), server("one", 3)]);
    namespace.wait_rolled_out("server");
    let load = Load::start(&namespace, "http://$SERVER_SERVICE_HOST/");
    namespace.apply(&[server("two", 3)]);
    replaced(&namespace, "two");
    for replicas in [1, 30, 1] {
        namespace.apply(&[server("two", replicas)]);
        namespace.wait_rolled_out("server");
    }
    namespace.eventually("one replica", || (namespace.list("pods", "app=server").len() == 1).then_some(()));
    load.end(&namespace);
}

/// As servers do that can't linger: the hook runs while they serve on.
fn no_request_is_lost_by_a_hook(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("hook");
    let image = cluster.image(&images::guests());
    let sleeps = json!({"preStop": {"exec": {"command": ["/sleep.wasm", LINGERS.to_string()]}}});
    let server = |version| {
        let mut server = with(server(&image, version, 2), leaves());
        server["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = sleeps.clone();
        server
    };
    namespace.apply(&[service("server"), server("one")]);
    namespace.wait_rolled_out("server");
    let load = Load::start(&namespace, "http://$SERVER_SERVICE_HOST/");
    namespace.apply(&[server("two")]);
    replaced(&namespace, "two");
    load.end(&namespace);
}

/// Waits until no pod of another version is left.
#[track_caller]
fn replaced(namespace: &Namespace, version: &str) {
    namespace.wait_rolled_out("server");
    let old = |pod: &Value| pod["spec"]["containers"][0]["env"][0]["value"] != version;
    namespace.eventually("the old version to be gone", || {
        (!namespace.list("pods", "app=server").iter().any(old)).then_some(())
    });
}

/// How many seconds a server stays when it is to go: nodes learn of that no sooner than it does, on a busy machine much later.
const LINGERS: u32 = 30;

fn lingers() -> Value {
    let annotations = json!({"run.lighter.http.linger": format!("{LINGERS}s")});
    with(leaves(), json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}))
}

fn leaves() -> Value {
    json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 4 * LINGERS}}}})
}

/// A client that asks as fast as it can, a connection for each request, in a native pod.
pub(crate) struct Load {
    name: String,
}

impl Load {
    /// Starts it on a URL, which a shell reads, and waits for its first answers.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, url: &str) -> Load {
        Load::named(namespace, "load", url)
    }

    /// One of several.
    #[track_caller]
    pub(crate) fn named(namespace: &Namespace, name: &str, url: &str) -> Load {
        let image = namespace.cluster().image(&images::busybox(namespace.cluster()));
        let script = "
            good=0 bad=0 out=0 longest=0 last=$(date +%s)
            while [ ! -e /tmp/stop ]; do
              if wget -q -T 30 -O /tmp/answer \"$URL\" 2>/tmp/error && grep -q hello /tmp/answer; then
                good=$((good + 1)) last=$(date +%s)
                [ $good != 20 ] || echo started
              else
                bad=$((bad + 1)) out=$(($(date +%s) - last))
                [ $out -le $longest ] || longest=$out
                echo \"$(date): after $good: $(cat /tmp/error)\"
                sleep 0.1
              fi
            done
            echo \"answered $good, failed $bad, longest $longest\"";
        let asks = container("load", &image, &["sh", "-c", &format!("URL={url}; {script}")]);
        // By the node's own runtime: it is not what is tested.
        namespace.apply(&[native(pod(name, "", &[asks]))]);
        namespace.wait_ready(name);
        namespace.eventually("answers", || namespace.logs(name, "load").contains("started").then_some(()));
        Load { name: name.to_owned() }
    }

    /// Panics unless all requests were answered.
    #[track_caller]
    pub(crate) fn end(self, namespace: &Namespace) {
        let log = self.stop(namespace);
        assert!(log.contains(", failed 0, "), "{log}");
    }

    /// Ends it, and returns for how many seconds there was no answer at the worst.
    #[track_caller]
    pub(crate) fn longest(self, namespace: &Namespace) -> u64 {
        let log = self.stop(namespace);
        let longest = log.trim().rsplit(' ').next().and_then(|seconds| seconds.parse().ok());
        longest.unwrap_or_else(|| panic!("{log}"))
    }

    #[track_caller]
    fn stop(&self, namespace: &Namespace) -> String {
        namespace.kubectl(&["exec", &self.name, "--", "sh", "-c", ": >/tmp/stop"]).run().ok();
        namespace.wait_phase(&self.name, "Succeeded");
        let log = namespace.logs(&self.name, "load");
        println!("{}", log.trim());
        log
    }
}

/// The Service of a deployment, on port 80.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

/// A handler that is asked whether it is ready and alive.
pub(crate) fn server(image: &str, version: &str, replicas: u64) -> Value {
    let handler = container("serve", image, &["/serve.wasm"]);
    deployment(
        "server",
        "lighter",
        replicas,
        &[with(probed(handler), json!({"env": [{"name": "VERSION", "value": version}]}))],
    )
}

/// A container that serves HTTP on port 8080.
pub(crate) fn probed(container: Value) -> Value {
    let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5});
    let liveness = json!({"periodSeconds": 10, "timeoutSeconds": 30, "failureThreshold": 10});
    with(
        container,
        json!({
            "ports": [{"containerPort": 8080}],
            "readinessProbe": with(probe.clone(), json!({"failureThreshold": 30})),
            "livenessProbe": with(probe, liveness),
        }),
    )
}
