//! Objects as tests and benches apply them.

use serde_json::{Value, json};

/// A pod that is not restarted, of this runtime class.
pub fn pod(name: &str, class: &str, containers: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"test": name}},
        "spec": {
            "runtimeClassName": class,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 5,
            "containers": containers,
        },
    })
}

/// A deployment whose pods have the label `app` with its name, and of which none is taken away before another is there.
pub fn deployment(name: &str, class: &str, replicas: u64, containers: &[Value]) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "runtimeClassName": class,
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 10,
                    "containers": containers,
                },
            },
        },
    })
}

/// A pod by the node's own runtime, which is not what is tested.
pub fn native(pod: Value) -> Value {
    with(pod, json!({"spec": {"runtimeClassName": null}}))
}

/// A container that runs this command.
pub fn container(name: &str, image: &str, command: &[&str]) -> Value {
    json!({"name": name, "image": image, "command": command})
}

/// A change of an object: what is in `changes` replaces what is there, object by object.
pub fn with(mut object: Value, changes: Value) -> Value {
    merge(&mut object, changes);
    object
}

fn merge(object: &mut Value, changes: Value) {
    match (object, changes) {
        (Value::Object(object), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(object.entry(name).or_insert(Value::Null), change);
            }
        }
        (object, change) => *object = change,
    }
}
