//! Pods that run to their end.

use lighter_tests::{Suite, kubernetes::Cluster, on_every_suite};
use serde_json::json;

use crate::{
    images,
    manifest::{container, pod, with},
};

on_every_suite!(completes_on_each_engine, fails_with_its_exit_code);

/// Each engine that the cluster's nodes have.
fn completes_on_each_engine(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("engines");
    let image = cluster.image(&images::guests());
    let classes = ["lighter", "lighter-wasmtime", "lighter-wamr", "lighter-wasmedge"].into_iter().filter(|class| {
        let has = cluster.has_class(class);
        if !has {
            println!("skipped: {class}, which no node of {suite} runs");
        }
        has
    });
    let classes: Vec<&str> = classes.collect();
    assert!(classes.contains(&"lighter"), "no node of the cluster has Lighter's label: is it installed?");
    for class in &classes {
        namespace.apply(&[pod(class, class, &[container("hello", &image, &["/hello.wasm"])])]);
    }
    for class in classes {
        namespace.wait_phase(class, "Succeeded");
        let log = namespace.logs(class, "hello");
        assert!(log.contains("hello from wasm\n"), "{class}: {log}");
    }
}

fn fails_with_its_exit_code(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    let namespace = cluster.namespace("exit");
    let image = cluster.image(&images::guests());
    namespace.apply(&[with(
        pod("exits", "lighter", &[container("exits", &image, &["/exit.wasm", "42"])]),
        json!({"metadata": {"annotations": {"run.lighter.engine": "wamr"}}}),
    )]);
    let pod = namespace.wait_phase("exits", "Failed");
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(42), &json!("Error")), "{ended}");
}
