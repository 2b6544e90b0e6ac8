//! Pods with a user namespace (`hostUsers: false`): root in them is nobody on the node.

use lighter_tests::{
    Suite,
    cri::{
        Container, Cri, Pod, PodBuilder,
        api::{IdMapping, Int64Value, NamespaceMode, StatusRequest},
    },
};

use crate::target::{Kind, Target, busybox, sh, targets, wasm};

targets! {
    root_is_nobody_on_the_node: Runc Native Wasm;
    another_user: Runc Native Wasm;
    files_of_the_image: Runc Native Wasm;
    the_pods_files: Runc Native Wasm;
    the_nodes_folders: Runc Native Wasm;
    the_whole_node: Runc Native Wasm;
    a_working_folder_that_is_made: Runc Native;
    what_a_program_sees: Runc Native;
    one_pid_namespace_for_the_pod: Runc Native;
    nothing_is_left: Runc Native Wasm;
    ids_that_the_kernel_refuses: Runc Native Wasm;
}

/// Root is this user and this group on the node.
const ROOT: u32 = 200_000;
const IDS: IdMapping = IdMapping { host_id: ROOT, container_id: 0, length: 65_536 };

/// A pod to be whose ids are others on the node.
fn with_users<'cri, 'bed>(pod: PodBuilder<'cri, 'bed>, ids: IdMapping) -> PodBuilder<'cri, 'bed> {
    pod.namespaces(|namespaces| {
        let users = namespaces.userns_options.get_or_insert_default();
        users.set_mode(NamespaceMode::Pod);
        (users.uids, users.gids) = (vec![ids], vec![ids]);
    })
}

fn pod<'cri, 'bed>(target: Target, cri: &'cri Cri<'bed>, name: &str) -> Pod<'cri, 'bed> {
    with_users(target.pod(cri, &format!("users-{name}")), IDS).run()
}

/// What the node's `/proc` says of a container's first process.
#[track_caller]
fn on_the_node(cri: &Cri<'_>, id: &str, script: &str) -> String {
    let pids = format!("find /sys/fs/cgroup -path '*{id}/cgroup.procs' -exec cat {{}} +");
    cri.bed().sh(&format!("pid=$({pids} | sort -n | head -n 1); cd /proc/$pid; {script}")).run().ok().stdout
}

/// User and group of a process, each four times: real, effective, saved, and for files.
fn ids(user: u32, group: u32) -> String {
    let four = |id: u32| format!("{id}\t{id}\t{id}\t{id}");
    format!("Uid:\t{}\nGid:\t{}\n", four(user), four(group))
}

const READ_IDS: &str = "grep -E '^(Uid|Gid)' status";
const READ_MAPS: &str = "cat uid_map gid_map | tr -s ' '";

fn root_is_nobody_on_the_node(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "root");
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    for id in [container.id(), pod.id()] {
        assert_eq!(on_the_node(&cri, id, READ_IDS), ids(ROOT, ROOT), "{id}");
        assert_eq!(on_the_node(&cri, id, READ_MAPS), " 0 200000 65536\n 0 200000 65536\n", "{id}");
    }
    let of = |id: &str| on_the_node(&cri, id, "readlink ns/user");
    assert_eq!(of(container.id()), of(pod.id()), "one user namespace for the pod");
    assert_ne!(of(pod.id()), cri.bed().sh("readlink /proc/self/ns/user").run().ok().stdout);
    container.stop(5).expect("stop");
    container.expect(143);
}

fn another_user(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "another");
    let container = target.stays(&pod, "c").security(|security| {
        security.run_as_user = Some(Int64Value { value: 1234 });
        security.run_as_group = Some(Int64Value { value: 4321 });
        security.supplemental_groups = vec![77];
    });
    let container = container.start();
    container.wait_for("ready");
    assert_eq!(on_the_node(&cri, container.id(), READ_IDS), ids(ROOT + 1234, ROOT + 4321));
    let groups = on_the_node(&cri, container.id(), "grep Groups status");
    let groups: Vec<&str> = groups.split_whitespace().skip(1).filter(|group| *group != "204321").collect();
    assert_eq!(groups, ["200077"]);
}

/// Does one thing with files, in a running container.
#[track_caller]
fn exec(target: Target, container: &Container<'_, '_>, words: &[&str]) -> (i32, String) {
    let script = match words {
        ["write", path, text] => format!("printf %s '{text}' >{path} || exit 1"),
        ["read", path] => format!("cat {path} || exit 1"),
        other => panic!("no script for {other:?}"),
    };
    let shell = ["sh", "-c", script.as_str()];
    let guest = [&["/files.wasm"], words].concat();
    let done = container.exec_sync(if target.is_wasm() { &guest } else { &shell }, 10).expect("exec");
    (done.exit_code, String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

fn files_of_the_image(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "image");
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    assert_eq!(exec(target, &container, &["read", "/data/file"]), (0, "of the folder".to_owned()));
    for path in ["/new", "/data/new", "/data/file"] {
        assert_eq!(exec(target, &container, &["write", path, "written"]).0, 0, "{path}");
    }
    // As root of the pod, they are nobody's on the node; what nobody wrote to is the layer's, which is root's.
    let owners = "stat -c '%u:%g' root/new root/data root/data/new root/data/file root/tmp";
    assert_eq!(on_the_node(&cri, container.id(), owners), format!("{ROOT}:{ROOT}\n").repeat(5));
    if !target.is_wasm() {
        let seen =
            container.exec_sync(&["stat", "-c", "%u:%g", "/new", "/data/file", "/bin/busybox"], 10).expect("exec");
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "0:0\n".repeat(3));
    }
    // Another container of the image finds it as it was.
    let image = target.files(&pod, "other", &["read", "/data/file"]).start();
    assert_eq!(image.expect(0).trim(), "of the folder");
}

/// What containerd makes for the pod: they are in folders that only the node's root may enter.
fn the_pods_files(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "files");
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    assert!(exec(target, &container, &["read", "/etc/hosts"]).1.contains("127.0.0.1"));
    assert_eq!(exec(target, &container, &["read", "/etc/hostname"]).0, 0);
    assert_eq!(exec(target, &container, &["write", "/dev/shm/note", "shared"]).0, 0);
    let other = target.files(&pod, "other", &["read", "/dev/shm/note"]).start();
    assert_eq!(other.expect(0).trim(), "shared");
}

/// The kubelet gives volumes the pod's ids, so that files keep their owners on the node.
fn the_nodes_folders(target: Target) {
    let cri = target.cri();
    let path = format!("/run/volumes-{:?}", target.kind);
    let closed = format!("{path}/closed/volume");
    let make = format!(
        "mkdir -p {closed}/below; chmod 0700 {path}/closed; cd {closed}; echo of the node >file; mount -t tmpfs none below; \
         echo deep >below/file"
    );
    cri.bed().sh(&make).run().ok();
    let pod = pod(target, &cri, "folders");
    // Without, root of the pod is nobody there: it may read, and may not write.
    let plain = target.stays(&pod, "plain").mount(&closed, "/volume", false).start();
    plain.wait_for("ready");
    assert_eq!(exec(target, &plain, &["read", "/volume/file"]), (0, "of the node".to_owned()));
    assert_eq!(exec(target, &plain, &["read", "/volume/below/file"]), (0, "deep".to_owned()));
    assert_eq!(exec(target, &plain, &["write", "/volume/new", "text"]).0, 1);
    // runc has them from 1.2 on.
    if target.suite == Suite::Forky {
        let mapped = |name: &str, readonly: bool| {
            let container = target.stays(&pod, name).mount(&closed, "/volume", readonly).with(|config| {
                for mount in &mut config.mounts {
                    (mount.uid_mappings, mount.gid_mappings) = (vec![IDS], vec![IDS]);
                }
            });
            let container = container.start();
            container.wait_for("ready");
            container
        };
        let container = mapped("mapped", false);
        assert_eq!(exec(target, &container, &["read", "/volume/file"]), (0, "of the node".to_owned()));
        assert_eq!(exec(target, &container, &["write", "/volume/new", "text"]).0, 0);
        assert_eq!(
            cri.bed().sh(&format!("stat -c '%u:%g' {closed}/new; cat {closed}/new")).run().ok().stdout,
            "0:0\ntext"
        );
        let container = mapped("readonly", true);
        assert_eq!(exec(target, &container, &["read", "/volume/new"]), (0, "text".to_owned()));
        assert_eq!(exec(target, &container, &["write", "/volume/new", "changed"]).0, 1);
    }
    drop(pod);
    cri.bed().sh(&format!("umount {closed}/below && rm -r {path}")).run().ok();
}

/// What is mounted in a volume stays with it in a user namespace, the kernel's filesystems too: a guest is not started then.
fn the_whole_node(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "node");
    let list = |name: &str, path: &str| target.files(&pod, name, &["list", path]).mount("/", "/host", true).create();
    let container = list("proc", "/host/proc");
    if target.is_wasm() {
        let error = container.start().expect_err("the seal's refusal");
        assert!(error.message().contains("seal container: "), "{error}");
        return;
    }
    container.start().expect("start");
    assert!(container.expect(0).contains("self"));
}

fn a_working_folder_that_is_made(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "cwd");
    let script = "pwd; stat -c %u:%g . .. && echo x >file";
    let container = sh(&pod, "c", script).with(|config| config.working_dir = "/made/for/it".to_owned());
    assert_eq!(container.start().expect(0), "/made/for/it\n0:0\n0:0\n");
}

/// Devices, kernel filesystems, streams: all that is root's own in a pod.
fn what_a_program_sees(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "sees");
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '
        echo out >/dev/null; head -c 1 /dev/zero | wc -c; stat -c '%t:%T' /dev/null
        (echo to the stream >/dev/stdout) 2>/dev/null || echo no stream
        touch /proc/sys/kernel/hostname 2>/dev/null || echo no sysctl
        test -d /sys/class/net/eth0 && echo eth0
        chown 5:6 /tmp && stat -c %u:%g /tmp
        chown 70000:0 /tmp 2>/dev/null || echo no such user
        mknod /disk b 8 0 2>/dev/null || echo no device
        mount -t tmpfs none /mnt 2>/dev/null || echo no mount";
    let mut seen = sh(&pod, "c", script).start().expect(0);
    if (target.kind, target.suite) == (Kind::Runc, Suite::Trixie) {
        // containerd 1.7 does not tell it whose the streams are to be.
        seen = seen.replace("no stream", "to the stream");
    }
    let expected =
        "0\n 0 200000 65536\n1\n1:3\nto the stream\nno sysctl\neth0\n5:6\nno such user\nno device\nno mount\n";
    assert_eq!(seen, expected);
    let terminal = sh(&pod, "t", "tty; stat -c %u /dev/pts/0").with(|config| config.tty = true);
    assert_eq!(terminal.start().expect(0).replace('\r', ""), "/dev/pts/0\n0\n");
}

fn one_pid_namespace_for_the_pod(target: Target) {
    let cri = target.cri();
    let pod = with_users(target.pod(&cri, "users-pid"), IDS);
    let pod = pod.namespaces(|namespaces| namespaces.set_pid(NamespaceMode::Pod)).run();
    let other = target.stays(&pod, "other").start();
    other.wait_for("ready");
    let seen = sh(&pod, "c", "ps -o pid,args").start().expect(0);
    assert!(seen.contains(" 1 /pause") && seen.contains("sleep 1000"), "{seen}");
    let done = other.exec_sync(&["sh", "-c", "kill -0 1 && cat /proc/1/status >/dev/null && id -u"], 10).expect("exec");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0\n");
}

fn nothing_is_left(target: Target) {
    let cri = target.cri();
    let pod = pod(target, &cri, "left");
    let container = target.stays(&pod, "c").start();
    container.wait_for("ready");
    let ids = [pod.id().to_owned(), container.id().to_owned()];
    // Of a volume's mounts, the node sees none.
    let mounts = cri.bed().sh("cat /proc/self/mountinfo").run().ok().stdout;
    let of_container = mounts.lines().filter(|line| line.contains(container.id())).count();
    assert_eq!(of_container, 1, "its root filesystem alone: {mounts}");
    container.stop(5).expect("stop");
    container.remove().expect("remove");
    pod.stop().expect("stop");
    pod.remove().expect("remove");
    for id in ids {
        cri.bed().assert_gone(&id);
        let mounts = cri.bed().sh("cat /proc/self/mountinfo").run().ok().stdout;
        assert!(!mounts.contains(&id), "{mounts}");
    }
}

fn ids_that_the_kernel_refuses(target: Target) {
    let cri = target.cri();
    let beyond = IdMapping { host_id: u32::MAX - 1, container_id: 0, length: 65_536 };
    let pod = with_users(target.pod(&cri, "users-refused"), beyond).try_run();
    let error = pod.err().expect("ids beyond the last one");
    assert!(!error.message().contains("died") && !error.message().contains("without a message"), "{error}");
    // And the name is free again.
    drop(with_users(target.pod(&cri, "users-refused"), IDS).run());
}

/// The kubelet runs such a pod only where containerd says that the handler can. Of all runtimes but `io.containerd.runc.v2` it
/// doesn't ask; a `runtime_path` makes Lighter one.
#[test]
fn a_handler_that_announces_them() {
    let target = Target { suite: Suite::Forky, kind: Kind::Wasm };
    let cri = target.cri();
    let status = cri.call(async |runtime| runtime.status(StatusRequest { verbose: false }).await).expect("status");
    let features = |name: &str| {
        let handler = status.runtime_handlers.iter().find(|handler| handler.name == name).expect("the handler");
        handler.features.as_ref().map(|features| (features.user_namespaces, features.recursive_read_only_mounts))
    };
    assert_eq!(features("lighter-by-path"), Some((true, true)));
    let pod = with_users(cri.pod("lighter-by-path", "users-by-path"), IDS).run();
    let guest = pod.container("guest", &wasm()).command(&["/files.wasm", "read", "/data/file"]).start();
    assert_eq!(guest.expect(0).trim(), "of the folder");
    let native = pod.container("native", &busybox(cri.bed())).command(&["id", "-u"]).start();
    assert_eq!(native.expect(0), "0\n");
}
