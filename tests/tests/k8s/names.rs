//! Names of Services, as guests look them up: by the search list and the options of the pod's `/etc/resolv.conf`.

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::json;

use crate::{
    images,
    manifest::{container, pod, with},
    services::{server, service},
};

on_every_suite!(a_service_is_found);

/// By sockets and by HTTP requests, in its own namespace and from another; as a native program finds it.
fn a_service_is_found(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let (namespace, elsewhere) = (cluster.namespace("names"), cluster.namespace("elsewhere"));
    let (guests, busybox) = (cluster.image(&images::guests()), cluster.image(&images::busybox(cluster)));
    namespace.apply(&[service("server"), server(&guests, "one", 1)]);
    namespace.wait_rolled_out("server");
    let address = namespace.get("service", "server")["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let asks = [
        container("guest", &guests, &["/serve.wasm"]),
        container("native", &busybox, &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"]),
    ];
    let there = format!("server.{}", namespace.name());
    for (namespace, names) in
        [(&namespace, vec!["server".to_owned(), there.clone(), format!("{there}.svc")]), (&elsewhere, vec![there])]
    {
        namespace.apply(&[pod("asks", "lighter", &asks)]);
        namespace.wait_ready("asks");
        let in_guest = |words: &[&str]| {
            let exec = namespace.kubectl(&[&["exec", "asks", "-c", "guest", "--", "/net.wasm"], words].concat());
            exec.run().stdout
        };
        for name in names {
            // The Service is not known everywhere as soon as it is made.
            namespace.eventually(&format!("{name} to be known"), || {
                let native = ["exec", "asks", "-c", "native", "--", "wget", "-q", "-O-", &format!("http://{name}/")];
                namespace.kubectl(&native).run().stdout.contains("hello").then_some(())
            });
            let resolved = in_guest(&["resolve", &name]);
            assert!(resolved.contains(&format!("[{address}:0")), "{name}, which is {address}: {resolved}");
            let connected = in_guest(&["connect", &format!("{name}:80")]);
            assert!(connected.starts_with("connected"), "{name}: {connected}");
            let fetched = namespace.proxied("asks", 8080, &format!("/fetch?url=http://{name}/"));
            assert!(fetched.contains("hello from wasi:http"), "{name}: {fetched}");
        }
        // Not as any name would.
        let absent = in_guest(&["resolve", "absent"]);
        assert!(absent.starts_with("error: "), "{absent}");
    }
    // The first process as well.
    namespace.apply(&[with(
        pod("first", "lighter", &[container("guest", &guests, &["/net.wasm", "connect", "server:80"])]),
        json!({"spec": {"restartPolicy": "OnFailure"}}),
    )]);
    namespace.wait_phase("first", "Succeeded");
}
