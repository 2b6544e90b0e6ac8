//! The manifests of k8s/: kustomize builds them, Kubernetes' own types take them, and they agree with each other and
//! with what is measured.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use lighter_tests::{Bed, Output, Suite, checkout, cri::Cri};
use serde_json::{Deserializer, Value};

use crate::bench::{install, node, sleeper};

/// What kubectl says of an object that has no containers.
const NO_PODS: &str = "the object is not a pod or does not have a pod template";

/// The folders that kustomize can build, below k8s/.
fn kustomizations() -> Vec<PathBuf> {
    let root = checkout().join("k8s");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of k8s/").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && !entry.ends_with("node") {
                folders.push(entry);
            } else if entry.ends_with("kustomization.yaml") {
                found.push(folder.strip_prefix(&root).expect("it is below").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A bed with k8s/ in it, and kubectl.
fn bed() -> &'static Bed {
    static COPIED: OnceLock<()> = OnceLock::new();
    let bed = Bed::get(Suite::Trixie);
    COPIED.get_or_init(|| copy(&checkout().join("k8s"), &bed.path("/tmp/k8s")));
    bed
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let to = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            fs::copy(&entry, &to).expect("a copy");
        }
    }
}

/// What kustomize makes of a folder, given to a command of kubectl's.
fn built(bed: &Bed, folder: &Path, command: &str) -> Output {
    let folder = folder.display();
    bed.sh(&format!("kubectl kustomize /tmp/k8s/{folder} | kubectl {command} --local -f - -o json")).run()
}

fn parsed(output: &Output) -> Vec<Value> {
    Deserializer::from_str(&output.stdout).into_iter().map(|value| value.expect("an object")).collect()
}

/// As they are written.
fn objects(bed: &Bed, folder: &Path) -> Vec<Value> {
    let output = built(bed, folder, "patch --type=merge -p '{}'").ok();
    assert_eq!(output.stderr, "", "{}", folder.display());
    parsed(&output)
}

fn name(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    )
}

/// Whether all that `part` has is in `whole`. Lists have the same order.
fn lacks(part: &Value, whole: &Value, path: &str) -> Option<String> {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            whole.get(key).map_or(Some(path.clone()), |whole| lacks(value, whole, &path))
        }),
        (Value::Array(part), Value::Array(whole)) => part
            .iter()
            .zip(whole)
            .enumerate()
            .find_map(|(at, (part, whole))| lacks(part, whole, &format!("{path}[{at}]"))),
        (part, whole) => (part != whole).then(|| path.to_owned()),
    }
}

#[test]
fn kubernetes_takes_all_of_them() {
    let bed = bed();
    let folders = kustomizations();
    assert!(folders.len() >= 12, "{folders:?}");
    for folder in folders {
        let objects = objects(bed, &folder);
        // Reads every object as its type, which refuses wrong values; writes those with containers without what their
        // types don't know, and says of the others that they have none.
        let output = built(bed, &folder, "set env LIGHTER=1");
        let typed = parsed(&output);
        assert_eq!(output.stderr.matches(NO_PODS).count() + typed.len(), objects.len(), "{output}");
        let mut compared = 0;
        for object in &objects {
            let Some(typed) = typed.iter().find(|typed| name(typed) == name(object)) else { continue };
            assert_eq!(
                lacks(object, typed, ""),
                None,
                "{}: {} has what Kubernetes doesn't know",
                folder.display(),
                name(object)
            );
            compared += 1;
        }
        assert_eq!(compared, typed.len(), "{}", folder.display());
    }
}

#[test]
fn examples_name_classes_that_there_are() {
    let bed = bed();
    let base = objects(bed, Path::new("base"));
    let classes: Vec<_> = base.iter().filter(|object| object["kind"] == "RuntimeClass").collect();
    let names: BTreeSet<_> = classes.iter().filter_map(|class| class["metadata"]["name"].as_str()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["lighter", "lighter-wamr", "lighter-wasmedge", "lighter-wasmtime"]
    );
    for class in &classes {
        let handler = class["handler"].as_str().expect("a handler");
        assert_eq!(class["metadata"]["name"], handler);
        assert_eq!(class["scheduling"]["nodeSelector"][format!("run.lighter/{handler}")], "true");
    }
    let mut used = 0;
    for folder in kustomizations().iter().filter(|folder| folder.starts_with("examples")) {
        for object in objects(bed, folder) {
            let specs = ["/spec", "/spec/template/spec", "/spec/jobTemplate/spec/template/spec"];
            let class = specs.iter().find_map(|path| object.pointer(path)?["runtimeClassName"].as_str());
            if let Some(class) = class {
                assert!(
                    classes.iter().any(|known| known["metadata"]["name"] == class),
                    "{} of {}",
                    class,
                    name(&object)
                );
                used += 1;
            }
        }
    }
    assert!(used >= 6, "{used}");
}

#[test]
fn the_installer_is_one_daemon_set_for_all() {
    let bed = bed();
    let installer = |folder: &Path| {
        let mut sets = objects(bed, folder);
        sets.retain(|object| object["kind"] == "DaemonSet");
        assert_eq!(sets.len(), 1, "{}", folder.display());
        sets.remove(0)
    };
    let container = |set: &Value| set["spec"]["template"]["spec"]["initContainers"][0].clone();
    let base = installer(Path::new("base"));
    let security = &container(&base)["securityContext"];
    assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"], "add": ["SYS_CHROOT"]}));
    assert_ne!(security["privileged"], true);
    let uninstall = installer(Path::new("uninstall"));
    assert_eq!(uninstall["metadata"]["name"], base["metadata"]["name"]);
    let last = |set: &Value| container(set)["args"].as_array().and_then(|args| args.last().cloned());
    assert_eq!(last(&uninstall), Some(Value::from("uninstall")));
    for folder in kustomizations().iter().filter(|folder| folder.starts_with("distributions")) {
        let set = installer(folder);
        assert_eq!(container(&set)["args"], container(&base)["args"], "{}", folder.display());
        // A file of another group's can't be made anew without.
        let added = if folder.ends_with("microk8s") { &["SYS_CHROOT", "CHOWN"][..] } else { &["SYS_CHROOT"] };
        let capabilities = serde_json::json!({"drop": ["ALL"], "add": added});
        assert_eq!(container(&set)["securityContext"]["capabilities"], capabilities, "{}", folder.display());
        let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
        let path =
            |name: &str| volumes.iter().find(|volume| volume["name"] == name).map(|volume| &volume["hostPath"]["path"]);
        let config = path("containerd").and_then(Value::as_str).expect("the configuration's folder");
        let mounts = container(&set)["volumeMounts"].as_array().cloned().expect("mounts");
        assert!(
            mounts.iter().any(|mount| mount["mountPath"] == format!("/host{config}")),
            "{}: {mounts:?}",
            folder.display()
        );
        assert!(!mounts.iter().any(|mount| mount["mountPath"] == "/host/etc/containerd"), "{}", folder.display());
    }
}

#[test]
fn the_installer_has_no_more_than_it_needs() {
    for folder in kustomizations().iter().filter(|folder| !folder.starts_with("examples")) {
        let objects = objects(bed(), folder);
        let set = objects.iter().find(|object| object["kind"] == "DaemonSet").expect("the installer");
        let pod = &set["spec"]["template"]["spec"];
        let folder = folder.display();
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[shared].is_null(), "{folder}: {shared}");
        }
        assert_eq!(pod["automountServiceAccountToken"], false, "{folder}");
        let all = |kind: &str| pod[kind].as_array().cloned().unwrap_or_default();
        let (installer, waits) = (all("initContainers"), all("containers"));
        let [(installer, waits)] = installer.iter().zip(&waits).collect::<Vec<_>>()[..] else { panic!("{folder}") };
        for container in [installer, waits] {
            let security = &container["securityContext"];
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{folder}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{folder}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{folder}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{folder}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{folder}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{folder}");
            let image = container["image"].as_str().expect("an image");
            assert!(image.contains(':') && !image.ends_with(":latest"), "{folder}: {image}");
        }
        assert_eq!(waits["securityContext"]["runAsNonRoot"], true, "{folder}");
        assert_eq!(waits["securityContext"]["capabilities"]["add"], Value::Null, "{folder}");
        assert_eq!(waits["volumeMounts"], Value::Null, "{folder}: neither files nor a token");
        let may_write = installer["volumeMounts"].as_array().expect("mounts").iter();
        let may_write = may_write.filter(|mount| mount["readOnly"] != true).count();
        assert_eq!(may_write, 2, "{folder}: containerd's folder and the prefix");
        let may: Vec<_> =
            objects.iter().filter(|object| object["rules"].is_array()).map(|role| &role["rules"]).collect();
        let rule = |resource: &str, verb: &str| serde_json::json!([{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]);
        assert_eq!(may, [&rule("events", "create"), &rule("nodes", "patch")], "{folder}");
    }
}

#[test]
fn the_overhead_is_what_a_pod_takes() {
    let declared: BTreeSet<_> = objects(bed(), Path::new("base"))
        .iter()
        .filter(|object| object["kind"] == "RuntimeClass")
        .map(|class| class["overhead"]["podFixed"]["memory"].as_str().expect("memory").to_owned())
        .collect();
    let declared: Vec<_> =
        declared.iter().filter_map(|memory| memory.strip_suffix("Mi")?.parse::<u64>().ok()).collect();
    let [declared] = declared[..] else { panic!("one overhead, in Mi: {declared:?}") };

    let bed = node(Suite::Forky);
    install(&bed);
    let cri = Cri::connect(&bed);
    let pod = cri.pod("lighter", "overhead").run();
    let guest = pod.container("c", &sleeper()).start();
    guest.wait_for("ready");
    // The daemon, and the pause container with its runner.
    let processes =
        bed.sh(&format!("pgrep -f -- '-id {}' ; pgrep -x pause || pgrep -f /pause", pod.id())).run().ok().stdout;
    let pss = |pid: &str| {
        let rollup = fs::read_to_string(bed.path(format!("/proc/{pid}/smaps_rollup"))).unwrap_or_default();
        let line =
            rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        line.unwrap_or_default()
    };
    let taken: u64 = processes.lines().map(pss).sum();
    println!("daemon and pause container: {taken} kB PSS");
    assert!(taken > 1024, "only {taken} kB: {processes}");
    assert!(taken <= declared * 1024, "{taken} kB, but the classes say {declared} Mi");
    assert!(taken >= declared * 1024 / 4, "{taken} kB only, and the classes say {declared} Mi");
}
