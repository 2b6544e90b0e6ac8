//! The kernel: what the sandbox is made of.

use super::{
    Finding,
    facts::{Cgroup, Host, Selinux, UserNamespaces},
    version::Version,
};

/// `close_range` (5.9) is the newest system call that a sandbox can't be made without; `openat2` is of 5.6, pidfds of 5.3.
const OLDEST: Version = Version(5, 9, 0);
/// Controllers that containers' limits are enforced by.
const CONTROLLERS: &[&str] = &["cpu", "memory", "pids"];

pub(super) fn check(host: &Host) -> Vec<Finding> {
    vec![kernel(host), cgroup(host), overlay(host), seccomp(host), user_namespaces(host), security_module(host)]
}

fn kernel(host: &Host) -> Finding {
    const CHECK: &str = "kernel";
    match host.kernel {
        None => Finding::warning(CHECK, "its version is not known", format!("uname -r must be {OLDEST} or newer")),
        Some(version) if version < OLDEST => Finding::problem(
            CHECK,
            format!("Linux {version} lacks system calls that the sandbox needs"),
            format!("run Linux {OLDEST} or newer"),
        ),
        Some(version) => Finding::ok(CHECK, format!("Linux {version}")),
    }
}

fn cgroup(host: &Host) -> Finding {
    const CHECK: &str = "cgroups";
    let (kind, controllers) = match &host.cgroup {
        None => {
            return Finding::problem(
                CHECK,
                "none are mounted on /sys/fs/cgroup",
                "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd",
            );
        }
        Some(Cgroup::V1(controllers)) => ("v1", controllers),
        Some(Cgroup::Hybrid(controllers)) => ("v1, with an empty v2 beside it (hybrid)", controllers),
        Some(Cgroup::V2(controllers)) => ("v2", controllers),
    };
    let driver = if host.systemd { "systemd" } else { "no systemd" };
    let missing: Vec<_> =
        CONTROLLERS.iter().copied().filter(|wanted| !controllers.iter().any(|there| there == wanted)).collect();
    if missing.is_empty() {
        return Finding::ok(CHECK, format!("{kind}, {driver}"));
    }
    let cure = if missing.contains(&"memory") {
        "boot with cgroup_enable=memory on the kernel's command line (Raspberry Pi: /boot/firmware/cmdline.txt)"
    } else {
        "enable them in the kernel, or delegate them to this machine's root group"
    };
    Finding::warning(CHECK, format!("{kind}, {driver}: limits of {} are not enforced", missing.join(", ")), cure)
}

fn overlay(host: &Host) -> Finding {
    const CHECK: &str = "overlayfs";
    if host.overlay {
        return Finding::ok(CHECK, "there");
    }
    Finding::warning(
        CHECK,
        "not loaded; containerd's default snapshotter needs it",
        "modprobe overlay; to keep it: echo overlay > /etc/modules-load.d/overlay.conf",
    )
}

fn seccomp(host: &Host) -> Finding {
    const CHECK: &str = "seccomp";
    if host.seccomp {
        return Finding::ok(CHECK, "there");
    }
    Finding::problem(
        CHECK,
        "the kernel has no seccomp filters, which guests are sealed with",
        "run a kernel with CONFIG_SECCOMP_FILTER",
    )
}

/// Of interest to `lighter run` only: the shim runs as root.
fn user_namespaces(host: &Host) -> Finding {
    const CHECK: &str = "user namespaces";
    let (why, cure) = match host.user_namespaces {
        None => return Finding::ok(CHECK, "`lighter run` needs no root"),
        Some(UserNamespaces::Limit) => ("user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=10000"),
        Some(UserNamespaces::Sysctl) => {
            ("kernel.unprivileged_userns_clone is 0", "sysctl -w kernel.unprivileged_userns_clone=1")
        }
        Some(UserNamespaces::AppArmor) => (
            "AppArmor restricts them",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give lighter-wasmtime a profile with `userns,`",
        ),
    };
    Finding::warning(CHECK, format!("{why}: `lighter run` needs root; the shim is not affected"), cure)
}

fn security_module(host: &Host) -> Finding {
    const CHECK: &str = "security module";
    let apparmor = if host.apparmor { "AppArmor: containers' profiles are entered" } else { "none" };
    match host.selinux {
        Selinux::Enforcing => Finding::warning(
            CHECK,
            "SELinux is enforcing, and its labels are not entered: guests keep the shim's label",
            "don't rely on SELinux to part containers of this runtime; the other walls stand",
        ),
        Selinux::Permissive => Finding::ok(CHECK, "SELinux, permissive; its labels are not entered"),
        Selinux::Absent => Finding::ok(CHECK, apparmor),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    fn host() -> Host {
        Host {
            kernel: Some(Version(6, 12, 0)),
            cgroup: Some(Cgroup::V2(["cpuset", "cpu", "io", "memory", "pids"].map(str::to_owned).into())),
            systemd: true,
            overlay: true,
            seccomp: true,
            user_namespaces: None,
            apparmor: true,
            selinux: Selinux::Absent,
        }
    }

    #[test]
    fn a_usual_machine_is_fine() {
        assert!(check(&host()).iter().all(|finding| finding.status == Status::Ok && finding.cure.is_none()));
    }

    #[test]
    fn each_lack_is_told_with_its_cure() {
        let without = |controller: &str| {
            Some(Cgroup::V1(
                CONTROLLERS.iter().filter(|name| **name != controller).map(|name| (*name).to_owned()).collect(),
            ))
        };
        let table = [
            (Host { kernel: Some(Version(5, 4, 0)), ..host() }, Status::Problem, "kernel"),
            (Host { kernel: None, ..host() }, Status::Warning, "kernel"),
            (Host { cgroup: None, ..host() }, Status::Problem, "cgroups"),
            (Host { cgroup: without("memory"), ..host() }, Status::Warning, "cgroups"),
            (Host { cgroup: without("pids"), ..host() }, Status::Warning, "cgroups"),
            (Host { overlay: false, ..host() }, Status::Warning, "overlayfs"),
            (Host { seccomp: false, ..host() }, Status::Problem, "seccomp"),
            (Host { user_namespaces: Some(UserNamespaces::AppArmor), ..host() }, Status::Warning, "user namespaces"),
            (Host { selinux: Selinux::Enforcing, ..host() }, Status::Warning, "security module"),
        ];
        for (host, status, check) in table {
            let told: Vec<_> = super::check(&host).into_iter().filter(|finding| finding.status != Status::Ok).collect();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].status == status && told[0].check == check && told[0].cure.is_some(), "{told:?}");
        }
    }
}
