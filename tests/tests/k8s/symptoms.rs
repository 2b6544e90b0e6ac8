//! What `docs/kubernetes.md` says of a pod's events and states, each reproduced.

use std::fs;

use lighter_tests::{
    Image, Suite, checkout, guests,
    kubernetes::{Cluster, Namespace},
    on_every_suite,
};
use serde_json::{Value, json};

use crate::{
    images,
    manifest::{container, native, pod, with},
};

on_every_suite!(each_is_what_describe_says);

/// A pod in trouble.
struct Symptom {
    /// What `kubectl describe pod` says, or the container's log; `…` stands for anything.
    says: &'static str,
    /// The pod, and what it needs. None where it can't be had.
    objects: fn(&Namespace) -> Option<Vec<Value>>,
}

const SYMPTOMS: &[Symptom] = &[
    Symptom {
        says: "didn't match Pod's node affinity",
        objects: |namespace| {
            let elsewhere = json!({"scheduling": {"nodeSelector": {"run.lighter/lighter": "elsewhere"}}});
            Some(vec![with(class(namespace, "lighter"), elsewhere), of_class(namespace)])
        },
    },
    Symptom {
        says: "no runtime for … is configured",
        objects: |namespace| Some(vec![class(namespace, "absent"), of_class(namespace)]),
    },
    Symptom {
        says: "libwasmedge.so.0 not found",
        objects: |namespace| {
            // Where the library is, a test of pods sees that it is used; others' nodes may lack all of the engine.
            namespace.cluster().own().filter(|_| !namespace.cluster().has_class("lighter-wasmedge"))?;
            let asks = json!({"metadata": {"annotations": {"run.lighter.engine": "wasmedge"}}});
            Some(vec![with(guest(namespace, "lighter", &["/hello.wasm"]), asks)])
        },
    },
    Symptom {
        says: "there is no annotation …; did you mean",
        objects: |namespace| {
            let mistaken = json!({"metadata": {"annotations": {"run.lighter.engin": "wamr"}}});
            Some(vec![with(guest(namespace, "lighter", &["/hello.wasm"]), mistaken)])
        },
    },
    Symptom {
        says: "no such file or directory in the image",
        objects: |namespace| Some(vec![guest(namespace, "lighter", &["/absent.wasm"])]),
    },
    Symptom {
        says: "no command specified",
        objects: |namespace| {
            let image =
                Image::new("docker.io/library/no-command:k8s").of_host().file("/hello.wasm", guests::p1("hello"));
            let image = namespace.cluster().image(&image);
            Some(vec![pod(NAME, "lighter", &[json!({"name": "main", "image": image})])])
        },
    },
    Symptom {
        says: "no match for platform in manifest",
        objects: |namespace| {
            let bed = namespace.cluster().own()?;
            // What tools make that build for several platforms: an index, here of one.
            let script = format!(
                r#"lighter build /tmp/hello.wasm -t {name}:one --format image
                lighter push {name}:one
                one=$(oras manifest fetch --plain-http --descriptor {name}:one)
                printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[%s]}}' \
                  "${{one%\}}}},\"platform\":{{\"os\":\"wasi\",\"architecture\":\"wasm\"}}}}" >/tmp/index.json
                oras manifest push --plain-http {name}:index /tmp/index.json"#,
                name = format!("{}/index", bed.registry())
            );
            fs::write(bed.path("/tmp/hello.wasm"), guests::p1("hello")).expect("write the module");
            bed.sh(&script).run().ok();
            Some(vec![pod(
                NAME,
                "lighter",
                &[json!({"name": "main", "image": format!("{}/index:index", bed.registry())})],
            )])
        },
    },
    Symptom {
        says: "exec format error",
        objects: |namespace| {
            // Again, as pods are by default: on a busy machine, runc's side now and then loses what such a short life said.
            let again = json!({"spec": {"restartPolicy": "OnFailure"}});
            Some(vec![with(native(guest(namespace, "", &["/hello.wasm"])), again)])
        },
    },
    Symptom {
        says: "wasm backtrace … Exit Code:    134",
        objects: |namespace| Some(vec![guest(namespace, "lighter", &["/trap.wasm"])]),
    },
    Symptom {
        says: "OOMKilled",
        objects: |namespace| {
            let image = namespace.cluster().image(&images::busybox(namespace.cluster()));
            let fills = container("main", &image, &["sh", "-c", "x=x; while :; do x=$x$x; done"]);
            let limited = with(fills, json!({"resources": {"limits": {"memory": "64Mi"}}}));
            Some(vec![pod(NAME, "lighter", &[limited])])
        },
    },
];

/// What tests of CRI reproduce, for Kubernetes 1.20 has it not.
const OF_CRI: &[&str] = &["hostUsers"];

/// Of each pod.
const NAME: &str = "pod";

fn each_is_what_describe_says(suite: Suite) {
    let Some(cluster) = Cluster::get(suite) else { return };
    for Symptom { says, objects } in SYMPTOMS {
        let namespace = cluster.namespace("symptom");
        let Some(objects) = objects(&namespace) else { continue };
        let _classes = Classes(cluster, &objects);
        namespace.apply(&objects);
        let mut shown = String::new();
        let said = namespace.comes(|| {
            shown = namespace.kubectl(&["describe", "pod", NAME]).run().stdout;
            shown += &namespace.kubectl(&["logs", NAME]).run().stdout;
            is_in(says, &shown).then_some(())
        });
        assert!(said.is_some(), "no {says:?} in\n{shown}");
        println!("{says}: as documented");
    }
}

/// The classes among objects, which no namespace takes along.
struct Classes<'objects>(&'static Cluster, &'objects [Value]);

impl Drop for Classes<'_> {
    fn drop(&mut self) {
        for class in self.1.iter().filter(|object| object["kind"] == "RuntimeClass") {
            let name = class["metadata"]["name"].as_str().unwrap_or_default();
            let _ = self.0.kubectl(&["delete", "runtimeclass", name]).try_run();
        }
    }
}

/// None is without a test, and none that is tested without a row.
#[test]
fn all_are_documented() {
    let text = fs::read_to_string(checkout().join("docs/kubernetes.md")).expect("read docs/kubernetes.md");
    let (_, table) = text.split_once("| a pod's event or state |").expect("the table of a pod's events and states");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    let tested = SYMPTOMS.iter().map(|symptom| symptom.says).chain(OF_CRI.iter().copied());
    let first =
        |row: &str| row.split(" | ").next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let tested: Vec<String> = tested.map(|says| says.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in &rows {
        assert!(tested.iter().any(|says| first(row).contains(&format!("`{says}`"))), "not tested: {row}");
    }
    for says in &tested {
        assert!(rows.iter().any(|row| first(row).contains(&format!("`{says}`"))), "not in the table: {says}");
    }
}

/// Whether the parts are there, one after the other.
fn is_in(says: &str, text: &str) -> bool {
    let rest = says.split('…').try_fold(text, |text, part| text.split_once(part.trim()).map(|(_, rest)| rest));
    rest.is_some()
}

/// A guest of a class.
fn guest(namespace: &Namespace, class: &str, command: &[&str]) -> Value {
    pod(NAME, class, &[container("main", &namespace.cluster().image(&images::guests()), command)])
}

/// A runtime class of this test's own: it is in no namespace.
fn class(namespace: &Namespace, handler: &str) -> Value {
    json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": namespace.name()}, "handler": handler,
    })
}

fn of_class(namespace: &Namespace) -> Value {
    guest(namespace, namespace.name(), &["/hello.wasm"])
}
