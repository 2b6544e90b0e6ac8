//! The life of a pod sandbox.

use std::collections::HashMap;

use lighter_tests::cri::{
    Code, Cri,
    api::{ListPodSandboxRequest, PodSandbox, PodSandboxFilter, PodSandboxState, PodSandboxStateValue, StatusRequest},
    refused,
};

use crate::target::{Target, targets};

targets! {
    the_node_is_ready: Native;
    it_runs_and_ends: Runc Native;
    it_can_be_ended_twice: Runc Native;
    unknown_ones: Runc Native;
    ended_with_all_in_it: Runc Native Wasm;
    names_are_taken_once: Runc Native;
    unknown_handlers_are_refused: Native;
}

#[track_caller]
fn list(cri: &Cri<'_>, filter: PodSandboxFilter) -> Vec<PodSandbox> {
    let request = ListPodSandboxRequest { filter: Some(filter) };
    cri.call(async |runtime| runtime.list_pod_sandbox(request).await).expect("a list").items
}

fn the_node_is_ready(target: Target) {
    let cri = target.cri();
    let status = cri.call(async |runtime| runtime.status(StatusRequest { verbose: true }).await).expect("a status");
    let conditions = status.status.expect("conditions").conditions;
    let ready = |name: &str| conditions.iter().any(|condition| condition.r#type == name && condition.status);
    assert!(ready("RuntimeReady") && ready("NetworkReady"), "{conditions:?}");
    let config = status.info.get("config").expect("the configuration");
    assert!(config.contains("lighter-wamr"), "{config}");
}

fn it_runs_and_ends(target: Target) {
    let cri = target.cri();
    let annotations = HashMap::from([("note".to_owned(), "kept".to_owned())]);
    let pod = target.pod(&cri, "life").with(|config| config.annotations = annotations.clone()).run();
    let status = pod.status();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert_eq!(status.metadata, pod.config().metadata);
    assert_eq!((&status.labels, &status.annotations), (&pod.config().labels, &annotations));
    assert_eq!(status.runtime_handler, target.handler());
    assert!(status.created_at > 0);
    assert!(pod.ip().starts_with("10.88."), "{status:?}");

    let by = |filter| list(&cri, filter).into_iter().map(|item| item.id).collect::<Vec<_>>();
    let in_state = |state: PodSandboxState| PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: state.into() }),
        label_selector: pod.config().labels.clone(),
        ..PodSandboxFilter::default()
    };
    assert_eq!(by(PodSandboxFilter { id: pod.id().to_owned(), ..PodSandboxFilter::default() }), [pod.id()]);
    assert_eq!(by(in_state(PodSandboxState::SandboxReady)), [pod.id()]);
    pod.stop().expect("stop");
    assert_eq!(pod.status().state(), PodSandboxState::SandboxNotready);
    assert_eq!(by(in_state(PodSandboxState::SandboxReady)), [""; 0]);
    assert_eq!(by(in_state(PodSandboxState::SandboxNotready)), [pod.id()]);
    pod.remove().expect("remove");
    refused(pod.try_status(), Code::NotFound);
    cri.bed().assert_gone(pod.id());
}

fn it_can_be_ended_twice(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "twice").run();
    pod.stop().expect("stop");
    pod.stop().expect("stop again");
    pod.remove().expect("remove");
    pod.remove().expect("remove again");
    pod.stop().expect("stop what is gone");
    // One that runs can be removed.
    let pod = target.pod(&cri, "at-once").run();
    pod.remove().expect("remove what runs");
    cri.bed().assert_gone(pod.id());
}

fn unknown_ones(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "unknown").run();
    let container = target.exits(&pod, "c", 0).create();
    container.remove().expect("remove");
    container.remove().expect("remove again");
    container.stop(1).expect("stop what is gone");
    refused(container.try_status(), Code::NotFound);
    refused(container.start(), Code::NotFound);
    refused(container.exec_sync(&["true"], 1), Code::NotFound);
    pod.remove().expect("remove the pod");
    refused(target.exits(&pod, "late", 0).try_create(), Code::NotFound);
}

fn ended_with_all_in_it(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "all").run();
    let containers = ["a", "b"].map(|name| target.stays(&pod, name).start());
    target.exits(&pod, "ended", 3).start().expect(3);
    target.stays(&pod, "created").create();
    assert_eq!(pod.containers().len(), 4);
    for container in &containers {
        container.wait_for("ready");
    }
    let mut daemons = cri.bed().leftovers();
    daemons.retain(|line| line.starts_with("process") && line.contains(&format!("-id {}", pod.id())));
    assert_eq!(daemons.len(), 1, "one daemon a pod: {daemons:#?}");
    pod.stop().expect("stop");
    for container in &containers {
        assert_ne!(container.wait().exit_code, 0);
    }
    pod.remove().expect("remove");
    for container in &containers {
        refused(container.try_status(), Code::NotFound);
        cri.bed().assert_gone(container.id());
    }
    cri.bed().assert_gone(pod.id());
}

fn names_are_taken_once(target: Target) {
    let cri = target.cri();
    let first = target.pod(&cri, "name").run();
    let same = target.pod(&cri, "name").with(|config| config.metadata.clone_from(&first.config().metadata));
    let refused = same.try_run().err().expect("its name is taken");
    assert!(refused.message().contains("is reserved for"), "{refused}");
    // The kubelet's next attempt.
    let next = target.pod(&cri, "name").with(|config| {
        config.metadata.clone_from(&first.config().metadata);
        config.metadata.get_or_insert_default().attempt = 1;
    });
    assert!(next.run().is_ready() && first.is_ready());
}

fn unknown_handlers_are_refused(target: Target) {
    let cri = target.cri();
    let refused = cri.pod("nope", "handler").try_run().err().expect("there is no such handler");
    assert!(refused.message().contains("nope"), "{refused}");
}
