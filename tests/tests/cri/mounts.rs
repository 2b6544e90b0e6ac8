//! Volumes as the kubelet gives them: folders and single files of the node.

use std::fs;

use lighter_tests::cri::api::{Device, MountPropagation};

use crate::target::{Target, sh, targets};

targets! {
    folders_of_the_node: Runc Native Wasm;
    read_only_ones: Runc Native Wasm;
    single_files: Runc Native Wasm;
    a_path_within_a_volume: Runc Native Wasm;
    a_volume_of_two_containers: Runc Native Wasm;
    what_is_not_there: Runc Native Wasm;
    propagation: Runc Native;
    the_pods_files: Runc Native Wasm;
    devices: Runc Native;
}

/// A folder of the node for one test, with a file in it.
fn volume(target: Target, name: &str) -> String {
    let path = format!("/srv/cri/{name}-{:?}", target.kind);
    target
        .cri()
        .bed()
        .sh(&format!("mkdir -p {path}/sub && echo of the node >{path}/file && echo below >{path}/sub/file"))
        .run()
        .ok();
    path
}

fn folders_of_the_node(target: Target) {
    let (cri, volume) = (target.cri(), volume(target, "rw"));
    let pod = target.pod(&cri, "rw").run();
    let files = |name: &str, words: &[&str]| target.files(&pod, name, words).mount(&volume, "/volume", false).start();
    assert_eq!(files("read", &["read", "/volume/file"]).expect(0).trim(), "of the node");
    files("write", &["write", "/volume/new", "of the container"]).expect(0);
    assert_eq!(fs::read_to_string(cri.bed().path(format!("{volume}/new"))).expect("a new file"), "of the container");
    // Within it, what the image has is hidden.
    let hidden = target.files(&pod, "hidden", &["list", "/data"]).mount(&volume, "/data", false).start();
    assert_eq!(hidden.expect(0), "file\nnew\nsub\n");
}

fn read_only_ones(target: Target) {
    let (cri, volume) = (target.cri(), volume(target, "ro"));
    let pod = target.pod(&cri, "ro").run();
    let files = |name: &str, words: &[&str]| target.files(&pod, name, words).mount(&volume, "/volume", true).start();
    assert_eq!(files("read", &["read", "/volume/file"]).expect(0).trim(), "of the node");
    files("write", &["write", "/volume/new", "text"]).expect(1);
    files("overwrite", &["write", "/volume/file", "text"]).expect(1);
    files("rm", &["rm", "/volume/file"]).expect(1);
    assert_eq!(cri.bed().sh(&format!("cd {volume}; ls; cat file")).run().ok().stdout, "file\nsub\nof the node\n");
}

/// As a ConfigMap's key with a `subPath`, and as the kubelet mounts `/etc/hosts`.
fn single_files(target: Target) {
    let (cri, volume) = (target.cri(), volume(target, "single"));
    let pod = target.pod(&cri, "single").run();
    let file = format!("{volume}/file");
    let files = |name: &str, words: &[&str], readonly: bool| {
        let container = target.files(&pod, name, words).mount(&file, "/etc/app/app.conf", readonly);
        container.mount(&file, "/etc/hosts", readonly).start()
    };
    assert_eq!(files("read", &["read", "/etc/app/app.conf"], true).expect(0).trim(), "of the node");
    assert_eq!(files("hosts", &["read", "/etc/hosts"], true).expect(0).trim(), "of the node");
    assert_eq!(files("list", &["list", "/etc/app"], true).expect(0), "app.conf\n");
    files("denied", &["write", "/etc/app/app.conf", "changed"], true).expect(1);
    files("write", &["write", "/etc/app/app.conf", "changed"], false).expect(0);
    assert_eq!(fs::read_to_string(cri.bed().path(&file)).expect("the file"), "changed");
}

/// As `subPath`.
fn a_path_within_a_volume(target: Target) {
    let (cri, volume) = (target.cri(), volume(target, "subpath"));
    let pod = target.pod(&cri, "subpath").run();
    let sub = format!("{volume}/sub");
    // One in the other: the inner keeps what it may.
    let files = |name: &str, words: &[&str]| {
        target.files(&pod, name, words).mount(&volume, "/volume", true).mount(&sub, "/volume/sub", false).start()
    };
    assert_eq!(files("read", &["read", "/volume/sub/file"]).expect(0).trim(), "below");
    files("outer", &["write", "/volume/new", "text"]).expect(1);
    files("inner", &["write", "/volume/sub/new", "text"]).expect(0);
    assert_eq!(cri.bed().sh(&format!("ls {sub}")).run().ok().stdout, "file\nnew\n");
}

/// As an `emptyDir`.
fn a_volume_of_two_containers(target: Target) {
    let (cri, volume) = (target.cri(), volume(target, "shared"));
    let pod = target.pod(&cri, "shared").run();
    let writer = target.files(&pod, "writer", &["write", "/out/note", "from the first"]).mount(&volume, "/out", false);
    writer.start().expect(0);
    let reader = target.files(&pod, "reader", &["read", "/in/note"]).mount(&volume, "/in", true);
    assert_eq!(reader.start().expect(0).trim(), "from the first");
}

fn what_is_not_there(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "absent").run();
    let path = format!("/srv/cri/absent-{:?}", target.kind);
    // containerd makes a folder of it.
    let container = target.files(&pod, "c", &["list", "/volume"]).mount(&path, "/volume", false);
    assert_eq!(container.start().expect(0).trim(), "");
    assert!(cri.bed().path(&path).is_dir());
}

fn propagation(target: Target) {
    let (cri, volume) = (target.cri(), volume(target, "propagation"));
    let bed = cri.bed();
    bed.sh(&format!("mount --bind {volume} {volume} && mount --make-shared {volume}")).run().ok();
    let pod = target.pod(&cri, "propagation").linux(|linux| {
        linux.security_context.get_or_insert_default().privileged = true;
    });
    let pod = pod.run();
    let script = "echo ready; while ! test -e /volume/go; do sleep 0.05; done; cat /volume/sub/file";
    let container = |name: &str, propagation: MountPropagation, script: &str| {
        let container = sh(&pod, name, script).mount(&volume, "/volume", false);
        let container = container.with(|config| config.mounts[0].propagation = propagation.into());
        // Only who is privileged may pass mounts on to the node.
        container
            .security(|security| security.privileged = propagation == MountPropagation::PropagationBidirectional)
            .start()
    };
    let private = container("private", MountPropagation::PropagationPrivate, script);
    let slave = container("slave", MountPropagation::PropagationHostToContainer, script);
    private.wait_for("ready");
    slave.wait_for("ready");
    bed.sh(&format!("mount -t tmpfs none {volume}/sub && echo on the mount >{volume}/sub/file && touch {volume}/go"))
        .run()
        .ok();
    assert_eq!(private.expect(0), "ready\nbelow\n");
    assert_eq!(slave.expect(0), "ready\non the mount\n");
    bed.sh(&format!("umount {volume}/sub")).run().ok();
    let script = "mount -t tmpfs none /volume/sub && echo of the container >/volume/sub/file";
    container("shared", MountPropagation::PropagationBidirectional, script).expect(0);
    let seen = bed.sh(&format!("cat {volume}/sub/file; umount {volume}/sub; umount {volume}")).run().ok();
    assert_eq!(seen.stdout, "of the container\n");
}

/// What containerd mounts of its own: names, resolvers, shared memory.
fn the_pods_files(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "files").with(|config| {
        config.hostname = "the-pod".to_owned();
        let dns = config.dns_config.get_or_insert_default();
        dns.servers = vec!["10.88.0.1".to_owned()];
        dns.searches = vec!["cluster.test".to_owned()];
        dns.options = vec!["ndots:5".to_owned()];
    });
    let pod = pod.run();
    let read = |name: &str, path: &str| target.files(&pod, name, &["read", path]).start().expect(0);
    assert_eq!(read("hostname", "/etc/hostname").trim(), "the-pod");
    assert_eq!(
        read("resolv", "/etc/resolv.conf").lines().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        ["search cluster.test", "nameserver 10.88.0.1", "options ndots:5"]
    );
    assert!(read("hosts", "/etc/hosts").contains("127.0.0.1"));
    if !target.is_wasm() {
        assert_eq!(sh(&pod, "name", "hostname; echo $HOSTNAME").start().expect(0), "the-pod\nthe-pod\n");
    }
}

/// One of the node's under another name; of the rest, what every container has.
fn devices(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "devices").run();
    let device = Device {
        container_path: "/dev/nothing".to_owned(),
        host_path: "/dev/null".to_owned(),
        permissions: "r".to_owned(),
    };
    let script = "stat -c '%t:%T' /dev/nothing; head -c 1 /dev/nothing | wc -c; head -c 1 /dev/zero | wc -c";
    let container = sh(&pod, "c", script).with(|config| config.devices.push(device));
    assert_eq!(container.start().expect(0), "1:3\n0\n1\n");
}
