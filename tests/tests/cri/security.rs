//! Who a container runs as, and what it may. Native ones are compared with runc's, line by line.

use lighter_tests::cri::{
    ContainerBuilder, Pod, Status,
    api::{Capability, Int64Value, LinuxContainerSecurityContext, SecurityProfile, security_profile::ProfileType},
};

use crate::target::{Kind, Target, guest, sh, targets};

targets! {
    contexts_as_under_runc: Native;
    users: Runc Native Wasm;
    a_read_only_rootfs: Runc Native Wasm;
    capabilities: Runc Native;
    seccomp_profiles: Runc Native Wasm;
    masked_paths: Runc Native;
    privileged_native_ones: Runc Native;
    privileged_guests_are_refused: Wasm;
}

/// All that a process can be told of what it may. Where a bind of a mount has no options, runc 1.1 and 1.3 do not agree on them.
const PROBE: &str = r#"
exec 2>&1
grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap...):' /proc/self/status
id; umask; ulimit -n; cat /proc/self/oom_score_adj
cut -d' ' -f4- /proc/self/mountinfo | awk '{ last[$2] = $0 } END { for (at in last) print last[at] }' |
  sed -E 's/ - (overlay|sysfs) .*/ - \1/; s/ - tmpfs tmpfs ro.*/ - tmpfs ro/; s/[0-9a-f]{64}/ID/g;
    s/(.dev.shm rw,).*relatime/\1/' | sort
ls /dev
for path in /proc/kcore /proc/timer_list /sys/firmware/efi /proc/sys/kernel/hostname; do head -c 1 $path 2>&1 | wc -c; done
"#;

/// What a process should not do, each with what came of it; of what reaches no further than the container.
const ATTEMPTS: &str = r#"
try() { why=$("$@" 2>&1 >/dev/null) && echo "$*: done" || echo "$*: $why"; }
try mount -t tmpfs none /mnt
try unshare -n true
try unshare -U true
try chown 5 /tmp
try ip link set lo mtu 1400
try touch /etc/new
try touch /data/new
try ping -c 1 -W 1 127.0.0.1
"#;

type Change = fn(&mut LinuxContainerSecurityContext);

fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

fn profile(profile_type: ProfileType, localhost_ref: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: profile_type.into(), localhost_ref: localhost_ref.to_owned() })
}

fn caps(add: &[&str], drop: &[&str]) -> Option<Capability> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    Some(Capability { add_capabilities: words(add), drop_capabilities: words(drop), ..Capability::default() })
}

fn contexts_as_under_runc(target: Target) {
    let cri = target.cri();
    let pods = [Kind::Runc, Kind::Native].map(|kind| Target { kind, ..target }.pod(&cri, "contexts").run());
    let rows: [(&str, Change); 12] = [
        ("default", |_| {}),
        ("user", |context| context.run_as_user = id(1234)),
        ("group", |context| (context.run_as_user, context.run_as_group) = (id(1234), id(4321))),
        ("groups", |context| (context.run_as_user, context.supplemental_groups) = (id(1000), vec![77, 78])),
        ("name", |context| context.run_as_username = "u".to_owned()),
        ("rootfs", |context| context.readonly_rootfs = true),
        ("none", |context| context.capabilities = caps(&[], &["ALL"])),
        ("some", |context| context.capabilities = caps(&["NET_ADMIN", "SYS_ADMIN"], &["CHOWN"])),
        ("no-new", |context| (context.no_new_privs, context.run_as_user) = (true, id(1234))),
        ("seccomp", |context| context.seccomp = profile(ProfileType::RuntimeDefault, "")),
        ("unconfined", |context| context.seccomp = profile(ProfileType::Unconfined, "")),
        ("restricted", |context| {
            context.run_as_user = id(1000);
            context.no_new_privs = true;
            context.capabilities = caps(&[], &["ALL"]);
            context.seccomp = profile(ProfileType::RuntimeDefault, "");
            context.readonly_rootfs = true;
        }),
    ];
    for (name, change) in rows {
        for (what, script) in [("probe", PROBE), ("attempts", ATTEMPTS)] {
            let run = |pod: &Pod<'_, '_>| sh(pod, &format!("{name}-{what}"), script).security(change).start().expect(0);
            let [theirs, ours] = [run(&pods[0]), run(&pods[1])];
            let only = |of: &str, other: &str| -> Vec<String> {
                of.lines().filter(|line| !other.lines().any(|l| l == *line)).map(str::to_owned).collect()
            };
            let (only_theirs, only_ours) = (only(&theirs, &ours), only(&ours, &theirs));
            assert!(
                theirs == ours,
                "{name} {what}: only under runc {only_theirs:#?}, only under Lighter {only_ours:#?}\n{theirs}\n{ours}"
            );
        }
    }
}

fn users(target: Target) {
    let cri = target.cri();
    let volume = format!("/srv/cri/users-{:?}", target.kind);
    let script = format!(
        "mkdir -p {volume} && chmod 0777 {volume} && echo secret >{volume}/secret && chown 0:77 {volume}/secret && chmod 0640 {volume}/secret"
    );
    cri.bed().sh(&script).run().ok();
    let pod = target.pod(&cri, "users").run();
    let container = |name: &str, words: &[&str], change: Change| {
        target.files(&pod, name, words).mount(&volume, "/volume", false).security(change).start()
    };
    container("root", &["write", "/volume/root", ""], |_| {}).expect(0);
    container("user", &["write", "/volume/user", ""], |context| context.run_as_user = id(1234)).expect(0);
    container("group", &["write", "/volume/group", ""], |context| {
        (context.run_as_user, context.run_as_group) = (id(1234), id(4321));
    })
    .expect(0);
    let owners = cri.bed().sh(&format!("cd {volume} && stat -c '%n %u:%g' root user group")).run().ok();
    // A user without a group has that of the image's passwd, else root's.
    let user_group = if target.is_wasm() { 0 } else { 4321 };
    assert_eq!(owners.stdout, format!("root 0:0\nuser 1234:{user_group}\ngroup 1234:4321\n"));
    container("denied", &["read", "/volume/secret"], |context| context.run_as_user = id(1000)).expect(1);
    let allowed = container("groups", &["read", "/volume/secret"], |context| {
        (context.run_as_user, context.supplemental_groups) = (id(1000), vec![77]);
    });
    assert_eq!(allowed.expect(0).trim(), "secret");
}

fn a_read_only_rootfs(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "rootfs").run();
    let volume = format!("/srv/cri/rootfs-{:?}", target.kind);
    cri.bed().sh(&format!("mkdir -p {volume}")).run().ok();
    let container = |name: &str, words: &[&str]| {
        let container = target.files(&pod, name, words).mount(&volume, "/volume", false);
        container.security(|context| context.readonly_rootfs = true).start()
    };
    container("read", &["read", "/data/file"]).expect(0);
    container("write", &["write", "/data/new", "text"]).expect(1);
    container("overwrite", &["write", "/data/file", "text"]).expect(1);
    container("volume", &["write", "/volume/new", "text"]).expect(0);
    // Else it is writable.
    target.files(&pod, "writable", &["write", "/data/new", "text"]).start().expect(0);
}

fn capabilities(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "capabilities").run();
    let lowers_mtu = "ip link set lo mtu 1400";
    sh(&pod, "default", lowers_mtu).start().expect(2);
    sh(&pod, "added", lowers_mtu)
        .security(|context| context.capabilities = caps(&["NET_ADMIN"], &[]))
        .start()
        .expect(0);
    sh(&pod, "kept", "chown 5 /tmp").start().expect(0);
    sh(&pod, "dropped", "chown 5 /tmp")
        .security(|context| context.capabilities = caps(&[], &["CHOWN"]))
        .start()
        .expect(1);
    let all = sh(&pod, "all", "grep CapEff /proc/self/status");
    let none = all.security(|context| context.capabilities = caps(&["CHOWN"], &["ALL"])).start().expect(0);
    assert_eq!(none.trim(), "CapEff:\t0000000000000001");
}

fn seccomp_profiles(target: Target) {
    let cri = target.cri();
    let path = "/var/lib/kubelet/seccomp/no-folders.json";
    let text =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    cri.bed().sh(&format!("mkdir -p /var/lib/kubelet/seccomp && echo '{text}' >{path}")).run().ok();
    let pod = target.pod(&cri, "seccomp").run();
    let container = |name: &str, profile_type: ProfileType, reference: &str| {
        let container = match target.kind {
            Kind::Wasm => guest(&pod, name, &["/files.wasm", "mkdir", "/tmp/new"]),
            Kind::Runc | Kind::Native => sh(&pod, name, "mkdir /tmp/new"),
        };
        container.security(|context| context.seccomp = profile(profile_type, reference))
    };
    container("unconfined", ProfileType::Unconfined, "").start().expect(0);
    container("default", ProfileType::RuntimeDefault, "").start().expect(0);
    container("localhost", ProfileType::Localhost, path).start().expect(1);
    let refused = container("absent", ProfileType::Localhost, "/nonexistent.json").try_create().err();
    assert!(refused.is_some_and(|status: Status| status.message().contains("nonexistent")));
}

fn masked_paths(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "masked").run();
    let script = "head -c 1 /proc/keys | wc -c; ls /sys/firmware | wc -l; touch /proc/sys/kernel/shm_rmid_forced 2>/dev/null || echo refused";
    let masked = sh(&pod, "masked", script).start().expect(0);
    assert_eq!(masked, "0\n0\nrefused\n");
    let unmasked = sh(&pod, "unmasked", "echo 0 >/proc/sys/kernel/shm_rmid_forced && head -c 1 /proc/keys | wc -c");
    let unmasked = unmasked.security(|context| {
        context.masked_paths.clear();
        context.readonly_paths.clear();
    });
    assert_eq!(unmasked.start().expect(0), "1\n");
}

fn privileged<'pod, 'bed>(container: ContainerBuilder<'pod, 'bed>) -> ContainerBuilder<'pod, 'bed> {
    container.security(|context| context.privileged = true)
}

fn privileged_native_ones(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "privileged").linux(|linux| {
        linux.security_context.get_or_insert_default().privileged = true;
    });
    let pod = pod.run();
    // Nothing of it leaves the container.
    let script = "grep -E '^(CapEff|Seccomp|NoNewPrivs)' /proc/self/status; mount -t tmpfs none /mnt && echo mounted";
    let text = privileged(sh(&pod, "c", script)).start().expect(0);
    let host = std::fs::read_to_string("/proc/self/status").expect("own status");
    let own = host.lines().find(|line| line.starts_with("CapBnd")).expect("a set").replace("CapBnd", "CapEff");
    assert!(text.contains("Seccomp:\t0") && text.contains("mounted"), "{text}");
    assert!(text.contains(&own), "{own}\n{text}");
}

/// Its seal would take all of it away: nobody is to believe otherwise.
fn privileged_guests_are_refused(target: Target) {
    let cri = target.cri();
    let pod = target.pod(&cri, "privileged").linux(|linux| {
        linux.security_context.get_or_insert_default().privileged = true;
    });
    let pod = pod.run();
    let container = privileged(guest(&pod, "c", &["/hello.wasm"])).create();
    let refused = container.start().expect_err("a privileged guest");
    assert!(refused.message().contains("privileged"), "{refused}");
    assert!(pod.is_ready());
}
