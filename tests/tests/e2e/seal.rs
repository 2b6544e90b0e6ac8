//! What the kernel says of a process that runs a guest.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileTypeExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Suite, guests, on_every_suite};

use crate::container::Container;

on_every_suite! { privileges, descriptors, namespaces, mounts, the_compiler_is_bounded_and_sealed }

/// What `/proc/PID/status` says under a name.
fn status(container: &Container<'_>, name: &str) -> String {
    let path = container.bed.path(format!("/proc/{}/status", container.inspect("{{.State.Pid}}")));
    let status = fs::read_to_string(path).expect("status of the container's init");
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.unwrap_or_else(|| panic!("no {name} in {status}")).to_owned()
}

fn privileges(suite: Suite) {
    let bed = &Bed::fresh(suite);
    // Else there is no privileged one.
    bed.sh("mkdir -p /etc/lighter && echo 'allow-privileged = true' >/etc/lighter/config.toml").run().ok();
    for (name, guest, flags) in [
        ("sealed-p1", guests::wat("sleep"), &[][..]),
        ("sealed-p2", guests::p2("sleep"), &[]),
        ("sealed-privileged", guests::wat("sleep"), &["--privileged"]),
        ("sealed-capable", guests::wat("sleep"), &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]),
    ] {
        let container = Container::ready(bed, name, &guest, flags);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(&container, set), "0000000000000000", "{set} of {name}");
        }
        assert_eq!(status(&container, "NoNewPrivs"), "1", "{name}");
        // 2: a filter (proc_pid_status(5)).
        assert_eq!(status(&container, "Seccomp"), "2", "{name}");
    }
}

fn descriptors(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("mkdir -p /srv/of-sealed").run().ok();
    for (name, guest) in [("descriptors-p1", guests::wat("sleep")), ("descriptors-p2", guests::p2("sleep"))] {
        let container = Container::ready(bed, name, &guest, &["--volume", "/srv/of-sealed:/data"]);
        let pid = container.inspect("{{.State.Pid}}");
        let open = descriptors_of(bed, &pid);
        for (number, target) in &open {
            let allowed = match number {
                0..3 => target == "/dev/null" || is_fifo(bed, &pid, *number),
                // The guest's root and its volumes.
                _ if target == "/" || target == "/data" => true,
                // What the engine waits with; its own end of a pair of sockets too.
                _ if target.starts_with("anon_inode:[event") => true,
                _ if target.starts_with("socket:") => open.values().any(|other| are_a_pair(bed, &pid, target, other)),
                // Mapped, not read: the engine copies pages from it when the guest writes to them.
                _ => target.ends_with(".cwasm") && is_read_only(bed, &pid, *number),
            };
            assert!(allowed, "{name} has descriptor {number}: {target}, of {open:#?}");
        }
    }
}

/// Number and target of each.
fn descriptors_of(bed: &Bed, pid: &str) -> BTreeMap<u32, String> {
    let items = fs::read_dir(bed.path(format!("/proc/{pid}/fd"))).expect("descriptors of the container's init");
    let descriptor = |fd: PathBuf| {
        let number = fd.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number");
        (number, fs::read_link(&fd).expect("target of a descriptor").to_string_lossy().into_owned())
    };
    items.map(|item| descriptor(item.expect("a descriptor").path())).collect()
}

fn is_fifo(bed: &Bed, pid: &str, number: u32) -> bool {
    fs::metadata(bed.path(format!("/proc/{pid}/fd/{number}"))).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Whether two targets, `socket:[INODE]`, are the ends of one connection, by the end of a line of `ss`:
/// `* INODE * INODE`.
fn are_a_pair(bed: &Bed, pid: &str, one: &str, other: &str) -> bool {
    let inode = |target: &str| target.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let sockets = bed.cmd(&["nsenter", "--target", pid, "--net", "ss", "--unix", "--all", "--no-header"]).run().ok();
    let ends = ["*", &inode(one), "*", &inode(other)];
    sockets.stdout.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().windows(4).any(|words| words == ends))
}

/// By the open flags in `/proc/PID/fdinfo/FD`, in octal, whose last digit is the access mode.
fn is_read_only(bed: &Bed, pid: &str, number: u32) -> bool {
    let info = fs::read_to_string(bed.path(format!("/proc/{pid}/fdinfo/{number}"))).expect("flags of a descriptor");
    info.lines().any(|line| line.starts_with("flags:") && line.ends_with('0'))
}

fn namespaces(suite: Suite) {
    let bed = Bed::get(suite);
    let container = Container::ready(bed, "namespaces", &guests::wat("sleep"), &["--network", "none"]);
    let pid = container.inspect("{{.State.Pid}}");
    for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(bed.path(format!("/proc/{pid}/ns/{namespace}"))).expect("namespace");
        assert_ne!(of("1"), of(&pid), "{namespace}");
    }
}

/// Of a container with a volume that has mounts of the kernel's in it.
fn mounts(suite: Suite) {
    let bed = &Bed::fresh(suite);
    bed.sh("mkdir -p /srv/tree/proc /srv/tree/sys /srv/tree/data
         mount -t proc proc /srv/tree/proc && mount -t sysfs sysfs /srv/tree/sys && mount -t tmpfs tmpfs /srv/tree/data")
        .run()
        .ok();
    let container = Container::ready(bed, "mounts", &guests::wat("sleep"), &["--volume", "/srv/tree:/tree"]);
    let pid = container.inspect("{{.State.Pid}}");
    let mounts =
        fs::read_to_string(bed.path(format!("/proc/{pid}/mountinfo"))).expect("mounts of the container's init");
    let mut seen = Vec::new();
    // Source: proc_pid_mountinfo(5).
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ").expect("a mount");
        let fields: Vec<&str> = left.split(' ').collect();
        let (path, options) = (fields[4], fields[5]);
        let filesystem = right.split(' ').next().unwrap_or_default();
        assert!(!["proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"].contains(&filesystem), "{line}");
        let has = |option: &str| options.split(',').any(|other| other == option);
        assert!(has("nosuid") && has("noexec") && (has("nodev") || path == "/dev"), "{line}");
        seen.push(path);
    }
    for path in ["/", "/dev", "/tree", "/tree/data"] {
        assert!(seen.contains(&path), "no {path}\n{mounts}");
    }
}

/// While it waits for the module, which may be anybody's.
fn the_compiler_is_bounded_and_sealed(suite: Suite) {
    let bed = Bed::fresh(suite);
    let compiler = bed.cmd(&["lighter-compile"]).spawn();
    let find = bed.sh("timeout 10 sh -c 'until pgrep --exact lighter-compile; do :; done'").run().ok();
    let read = |name: &str| {
        fs::read_to_string(bed.path(format!("/proc/{}/{name}", find.stdout.trim())))
            .expect("what the kernel says of it")
    };
    let sealed = ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"];
    let deadline = Instant::now() + Duration::from_secs(10);
    while !sealed.iter().all(|line| read("status").contains(line)) {
        assert!(Instant::now() < deadline, "not sealed:\n{}", read("status"));
    }
    let limits = read("limits");
    for limit in ["Max cpu time", "Max address space"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).expect("a line for each limit");
        assert!(!line.contains("unlimited"), "{line}");
    }
    drop(compiler);
}
