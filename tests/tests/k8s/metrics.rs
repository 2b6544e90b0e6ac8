//! What pods use, as `kubectl top` shows it and an autoscaler goes by it. Kubelets ask CRI which containers there are and what
//! they use, and read the figures from their cgroups again where they can, as all do by default: both are looked at.

use lighter_tests::{
    Suite,
    cri::{
        Cri,
        api::{ContainerStats, ContainerStatsFilter, ListContainerStatsRequest},
    },
    kubernetes::{Cluster, Namespace},
    on_every_suite,
};
use serde_json::{Value, json};

use crate::{
    images,
    manifest::{container, native, pod, with},
    services::{Load, server, service},
};

on_every_suite!(top, an_autoscaler);

/// Thousandths of a processor and mebibytes that a pod may have.
const CPU: u64 = 200;
const MEMORY: u64 = 64;

/// A busy guest uses what a busy native program does under the same limit, one that holds all the memory it can get nearly its
/// limit, one that sleeps next to nothing.
fn top(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    if !cluster.has_metrics() {
        return;
    }
    let namespace = cluster.namespace("top");
    let (guests, busybox) = (cluster.image(&images::guests()), cluster.image(&images::busybox(cluster)));
    let limits = json!({"cpu": format!("{CPU}m"), "memory": format!("{MEMORY}Mi")});
    // Their input doesn't end: a guest that has all its memory waits for it.
    let limited = |image: &str, command: &[&str]| {
        [with(container("main", image, command), json!({"resources": {"limits": limits}, "stdin": true}))]
    };
    namespace.apply(&[
        pod("busy", "lighter", &limited(&guests, &["/busy.wasm"])),
        pod("sleeps", "lighter", &limited(&guests, &["/sleep.wasm"])),
        pod("holds", "lighter", &limited(&guests, &["/memory.wasm", "and waits"])),
        native(pod("native", "", &limited(&busybox, &["sh", "-c", "while :; do :; done"]))),
    ]);
    let mut last = String::new();
    let plausible = || {
        // The kubelet measures now and then.
        last = namespace.kubectl(&["top", "pods", "--no-headers", "--containers"]).run().to_string();
        let [busy, sleeps, holds, native] = ["busy", "sleeps", "holds", "native"].map(|name| used(&last, name));
        let (busy, sleeps, holds, native) = (busy?, sleeps?, holds?, native?);
        let cpu =
            native.cpu > CPU / 4 && busy.cpu >= native.cpu / 2 && busy.cpu <= CPU * 5 / 4 && sleeps.cpu <= CPU / 10;
        (cpu && holds.memory > MEMORY / 2 && holds.memory <= MEMORY && sleeps.memory < MEMORY / 2).then_some(())
    };
    assert!(namespace.comes(plausible).is_some(), "no plausible usage:\n{last}");
    let node = namespace.get("pod", "busy")["spec"]["nodeName"].as_str().expect("the pod's node").to_owned();
    let top = cluster.kubectl(&["top", "node", &node, "--no-headers"]).run().ok().stdout;
    let cpu = top.split_whitespace().nth(1).and_then(|cpu| cpu.strip_suffix('m')).and_then(|cpu| cpu.parse().ok());
    assert!(cpu.is_some_and(|cpu: u64| cpu > 0), "{top}");
    if let Some(bed) = cluster.own() {
        as_cri_says(&namespace, &Cri::connect(bed));
    }
}

/// The same by the shim's word, in CRI's answer.
#[track_caller]
fn as_cri_says(namespace: &Namespace, cri: &Cri<'_>) {
    let of_namespace = [("io.kubernetes.pod.namespace".to_owned(), namespace.name().to_owned())];
    let usage = |pod: &str| {
        let filter = ContainerStatsFilter { label_selector: of_namespace.clone().into(), ..Default::default() };
        let request = ListContainerStatsRequest { filter: Some(filter) };
        let listed = cri.call(async |runtime| runtime.list_container_stats(request).await).expect("stats").stats;
        let is_of = |stats: &&ContainerStats| {
            let attributes = stats.attributes.as_ref();
            attributes.is_some_and(|of| of.labels.get("io.kubernetes.pod.name").is_some_and(|name| name == pod))
        };
        let stats = listed.iter().find(is_of).unwrap_or_else(|| panic!("CRI has no figures of {pod}: {listed:#?}"));
        let cpu = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds).map(|usage| usage.value);
        let memory = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes).map(|bytes| bytes.value);
        (cpu.unwrap_or(0), memory.unwrap_or(0) >> 20)
    };
    let held = usage("holds").1;
    assert!((MEMORY / 2..=MEMORY).contains(&held), "CRI says that a guest with {MEMORY} MiB uses {held}");
    let before = ["busy", "native"].map(|pod| usage(pod).0);
    namespace.eventually("use of processors in CRI's answers", || {
        let [busy, native] = ["busy", "native"].map(|pod| usage(pod).0);
        let (busy, native) = (busy - before[0], native - before[1]);
        (native > A_WHILE && busy > A_WHILE && busy < native * 3 && native < busy * 3).then_some(())
    });
}

/// Nanoseconds of a processor's time that are no chance.
const A_WHILE: u64 = 500_000_000;

struct Used {
    cpu: u64,
    memory: u64,
}

/// A pod's thousandths of a processor and mebibytes in what `kubectl top pods --containers` prints.
fn used(top: &str, pod: &str) -> Option<Used> {
    let words = top.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let [_, "main", cpu, memory] = words.into_iter().find(|words| words.first() == Some(&pod))?[..] else {
        return None;
    };
    Some(Used { cpu: cpu.strip_suffix('m')?.parse().ok()?, memory: memory.strip_suffix("Mi")?.parse().ok()? })
}

/// Under load there are more replicas; without, there are not.
fn an_autoscaler(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    if !cluster.has_metrics() {
        return;
    }
    let namespace = cluster.namespace("autoscaler");
    let image = cluster.image(&images::guests());
    let mut server = server(&image, "one", 1);
    let spec = &mut server["spec"]["template"]["spec"];
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "10m"}});
    namespace.apply(&[service("server"), server]);
    namespace.wait_rolled_out("server");
    namespace.eventually("the start to be forgotten", || {
        let top = namespace.kubectl(&["top", "pods", "--no-headers", "--selector=app=server"]).run().stdout;
        matches!(top.split_whitespace().nth(1), Some("0m" | "1m" | "2m")).then_some(())
    });
    let scales = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "server"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"},
            "minReplicas": 1,
            "maxReplicas": 3,
            // Of what it asks for: more than probes take, much less than a client takes that asks all the time.
            "targetCPUUtilizationPercentage": 40,
        },
    });
    namespace.apply(&[scales]);
    namespace.wait("hpa", "server", "to know the usage", |scales| utilization(scales).is_some());
    assert_eq!(namespace.get("deployment", "server")["spec"]["replicas"], 1, "{}", described(&namespace));
    let load = Load::start(&namespace, "http://$SERVER_SERVICE_HOST/");
    namespace.wait("deployment", "server", "to be scaled up", |server| server["spec"]["replicas"].as_u64() > Some(1));
    namespace.wait_rolled_out("server");
    load.end(&namespace);
}

fn utilization(autoscaler: &Value) -> Option<u64> {
    // Of autoscaling/v1, or of what later versions are shown as.
    let current = &autoscaler["status"];
    let v2 = &current["currentMetrics"][0]["resource"]["current"]["averageUtilization"];
    current["currentCPUUtilizationPercentage"].as_u64().or_else(|| v2.as_u64())
}

fn described(namespace: &Namespace) -> String {
    namespace.kubectl(&["describe", "hpa", "server"]).run().stdout
}
