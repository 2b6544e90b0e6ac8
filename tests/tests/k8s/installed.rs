//! From a cluster that has never heard of Lighter to one that runs our examples, by `kubectl apply`, and back.

use std::{fs, path::Path, time::Duration};

use lighter_tests::{
    Bed, Image, Suite, checkout, guests,
    kubernetes::{Cluster, Namespace},
    on_every_suite,
};
use serde_json::{Value, json};

use crate::images;

on_every_suite!(installed_used_and_uninstalled);

/// What stands for the node's systemd, which beds lack: whoever writes to the first pipe has containerd restarted, and reads
/// from the second when that is done. Pipes, for the installer sees the node's files read-only.
const RESTARTER: &str = r#"
    mkfifo /run/bed/restart /run/bed/restarted
    setsid -f sh -c '
      while read line </run/bed/restart; do
        pid=$(cat /run/bed/containerd.pid)
        kill $pid
        while [ -e /proc/$pid ]; do sleep 0.05; done
        setsid -f sh -c "echo \$\$ >/run/bed/containerd.pid; exec containerd </dev/null >>/var/log/bed/containerd.log 2>&1"
        echo "$line" >/run/bed/restarted
      done' >/dev/null 2>&1
"#;

/// What asks it to.
const RESTART: &str = "echo restart >/run/bed/restart; cat /run/bed/restarted";

/// Where the bed has the manifests.
const MANIFESTS: &str = "/tmp/k8s";

fn installed_used_and_uninstalled(suite: Suite) {
    let Some(cluster) = Cluster::bare(suite) else { return };
    let Some(bed) = cluster.own() else { return };
    copy(&checkout().join("k8s"), &bed.path(MANIFESTS));
    bed.sh(RESTARTER).run().ok();
    import_images(cluster, bed);
    let before = node_files(bed);

    let namespace = cluster.namespace("examples");
    let installs = overlay(bed, "base");
    cluster.kubectl(&["apply", "-k", &installs]).run().ok();
    wait_for_installer(cluster);
    assert_eq!(label(cluster, suite), "true", "the label of a node with Lighter");
    use_it(&namespace);
    let delete = cluster.kubectl(&["delete", "namespace", "restricted", namespace.name(), "--timeout=300s"]);
    delete.timeout(Duration::from_secs(310)).run().ok();

    cluster.kubectl(&["apply", "-k", &overlay(bed, "uninstall")]).run().ok();
    // Not before the kubelet has removed what is left of the pods that have ended: until then it refuses, and is tried again.
    wait_for_installer(cluster);
    assert_eq!(label(cluster, suite), "null", "the label of a node without Lighter");
    cluster.kubectl(&["delete", "-k", &installs, "--timeout=300s"]).timeout(Duration::from_secs(310)).run().ok();
    assert_eq!(node_files(bed), before, "files that an uninstallation leaves");
    cluster.remove();
}

/// Every example, as it is.
fn use_it(namespace: &Namespace) {
    let cluster = namespace.cluster();
    // What a cluster's storage would make for a claim.
    namespace.apply(&[json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "data"},
        "spec": {"capacity": {"storage": "16Mi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/var/data"}},
    })]);
    for example in ["job", "http", "mixed", "volumes", "cronjob", "networkpolicy", "restricted"] {
        let built = cluster.kubectl(&["kustomize", &format!("{MANIFESTS}/examples/{example}")]).run().ok().stdout;
        // Kubernetes before 1.21 has the same under another version; and each minute comes sooner than every fifth.
        let built = built
            .replace("batch/v1\nkind: CronJob", "batch/v1beta1\nkind: CronJob")
            .replace("*/5 * * * *", "* * * * *");
        let built = if example == "restricted" {
            cluster.kubectl(&["apply", "-f", "-"]).stdin(built).run()
        } else {
            namespace.kubectl(&["apply", "-f", "-"]).stdin(built).run()
        };
        built.ok();
    }
    namespace.wait("job", "hello", "to complete", |job| job["status"]["succeeded"] == 1);
    namespace.wait_rolled_out("handler");
    let path = format!("/api/v1/namespaces/{}/services/handler:http/proxy/", namespace.name());
    namespace.eventually("an answer", || {
        (cluster.kubectl(&["get", "--raw", &path]).run().stdout == "hello from wasi:http\n").then_some(())
    });
    namespace.wait_phase("mixed", "Succeeded");
    for container in ["guest", "sidecar"] {
        assert_eq!(namespace.logs("mixed", container).trim_end(), "from the init container", "{container}");
    }
    namespace.wait_phase("volumes", "Succeeded");
    namespace.wait("cronjob", "hello", "to have run", |cron| !cron["status"]["lastScheduleTime"].is_null());
    let restricted = ["--namespace", "restricted", "get", "pod", "hello", "-o", "jsonpath={.status.phase}"];
    namespace.eventually("the restricted pod", || {
        (cluster.kubectl(&restricted).run().ok().stdout == "Succeeded").then_some(())
    });
}

/// Waits until the installer's pod has done its work.
#[track_caller]
fn wait_for_installer(cluster: &Cluster) {
    let status = ["--namespace=lighter-system", "rollout", "status", "daemonset/lighter-node", "--timeout=300s"];
    let done = cluster.kubectl(&status).timeout(Duration::from_secs(310)).run();
    if done.status != 0 {
        let in_system = |words: &[&str]| cluster.kubectl(&[&["--namespace=lighter-system"], words].concat()).run();
        let logs = in_system(&["logs", "daemonset/lighter-node", "-c", "lighter-node"]);
        panic!("{done}\n{logs}\n{}", in_system(&["describe", "pods"]));
    }
}

/// What the installer says of the node.
fn label(cluster: &Cluster, suite: Suite) -> String {
    let node = cluster.kubectl(&["get", "node", suite.name(), "-o", "json"]).run().ok().stdout;
    let node: Value = serde_json::from_str(&node).expect("JSON");
    node["metadata"]["labels"]["run.lighter/lighter"].as_str().unwrap_or("null").to_owned()
}

/// A folder of manifests, told how a node without systemd restarts its containerd.
fn overlay(bed: &Bed, folder: &str) -> String {
    let overlay = format!("{MANIFESTS}/test-{folder}");
    let patch = json!([{
        "op": "add",
        "path": "/spec/template/spec/initContainers/0/args/0",
        "value": format!("--restart-command={RESTART}"),
    }]);
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("../{folder}")],
        "patches": [{"target": {"kind": "DaemonSet", "name": "lighter-node"}, "patch": patch.to_string()}],
    });
    fs::create_dir_all(bed.path(&overlay)).expect("a folder for the overlay");
    fs::write(bed.path(format!("{overlay}/kustomization.yaml")), kustomization.to_string()).expect("write the overlay");
    overlay
}

/// Under the names that the manifests have.
fn import_images(cluster: &Cluster, bed: &Bed) {
    let files = ["hello", "files"].map(|name| {
        let image = Image::new(&format!("ghcr.io/me/{name}:1")).of_host().folder("/tmp");
        image.file(&format!("/{name}.wasm"), guests::p1(name)).entrypoint(&[&format!("/{name}.wasm")])
    });
    files.iter().for_each(|image| drop(cluster.image(image)));
    let handler = Image::new("ghcr.io/me/handler:1").of_host().file("/serve.wasm", guests::handler("serve"));
    cluster.image(&handler.file("/sleep.wasm", guests::p1("sleep")).entrypoint(&["/serve.wasm"]));
    cluster.image(&images::busybox(cluster).named("docker.io/library/busybox:1"));
    let mut installer =
        Image::new("ghcr.io/lighter-project/lighter-node:0.1.0").of_host().entrypoint(&["/bin/lighter-node"]);
    for program in fs::read_dir(bed.path("/usr/local/bin")).expect("list /usr/local/bin").flatten() {
        let (path, name) = (program.path(), format!("/bin/{}", program.file_name().to_string_lossy()));
        installer = match fs::read_link(&path) {
            Ok(target) => installer.symlink(&name, &target.to_string_lossy()),
            Err(_) => installer.file_with_mode(&name, fs::read(&path).expect("read a program"), 0o755),
        };
    }
    cluster.image(&installer);
}

/// Everything that an installer could have touched.
fn node_files(bed: &Bed) -> String {
    let list = "find /etc/containerd /opt ! -path '/opt/containerd*' -exec ls -ldn {} + | awk '{print $1, $3, $4, $9, $10, $11}'";
    bed.sh(&format!("{list}; find /etc/containerd -type f -exec cat {{}} +")).run().ok().stdout
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a folder");
    for item in fs::read_dir(from).expect("list the manifests").flatten() {
        let (path, target) = (item.path(), to.join(item.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            fs::copy(&path, &target).expect("copy a manifest");
        }
    }
}
