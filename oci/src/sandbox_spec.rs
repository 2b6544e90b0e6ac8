//! The spec that libcontainer builds for a guest: the bundle's, less whatever would be a way to the runner itself.
//!
//! `/proc` is the exception: libcontainer needs it after it has entered the rootfs (for supplementary groups and
//! sysctls), so it stays, and the seal detaches it before the guest runs.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use nix::sys::statfs;
use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilitiesBuilder, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, Mount,
    MountBuilder, Spec,
};

use crate::Error;

/// Filesystems that describe or control processes and the kernel. A guest runs inside the runner's process, so a file of
/// these (`/proc/self/mem` first of all) may be the runner's own memory.
pub const KERNEL_FILESYSTEMS: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "mqueue",
    "devpts",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "configfs",
    "efivarfs",
    "binfmt_misc",
    "pstore",
    "fusectl",
];

/// What nobody has all of but who has all there is.
const OF_THE_PRIVILEGED: [Capability; 4] =
    [Capability::SysAdmin, Capability::SysModule, Capability::SysPtrace, Capability::NetAdmin];

/// Whether the container is what Docker, `ctr` and CRI call privileged. A spec has no word for it: they give it all
/// capabilities, and hide nothing of the kernel.
pub(crate) fn is_privileged(spec: &Spec) -> bool {
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = capabilities.and_then(|capabilities| capabilities.bounding().as_ref());
    let all = bounding.is_some_and(|set| OF_THE_PRIVILEGED.iter().all(|capability| set.contains(capability)));
    let masked = spec.linux().as_ref().and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
    all && masked.is_empty()
}

/// Turns the bundle's spec into the sandbox's.
pub(crate) fn derive(mut spec: Spec, rootfs: &Path, cgroup: &Path) -> Result<Spec, Error> {
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.to_owned());
    }
    let mounts = spec.mounts().clone().unwrap_or_default();
    let mut mounts: Vec<Mount> =
        mounts.into_iter().filter_map(|mount| kept_mount(mount).transpose()).collect::<Result<_, _>>()?;
    if !mounts.iter().any(|mount| mount.typ().as_deref() == Some("proc")) {
        let proc = MountBuilder::default().destination("/proc").typ("proc").source("proc").build();
        mounts.insert(0, proc.map_err(|_| Error::SpecLacks("mounts"))?);
    }
    spec.set_mounts(Some(mounts));

    let linux = spec.linux_mut().as_mut().ok_or(Error::SpecLacks("linux section"))?;
    let own_mounts = linux.namespaces().iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Mount);
    if !own_mounts {
        return Err(Error::Refused {
            what: "the host's mount namespace".to_owned(),
            why: "a guest runs inside the runner's process and must not reach the host's /proc; keep the mount namespace in the spec".to_owned(),
        });
    }
    linux.set_cgroups_path(Some(cgroup.to_owned()));
    bound_devices(linux);
    // All of these lie under /proc and /sys, which the sandbox does not have.
    linux.set_masked_paths(None);
    linux.set_readonly_paths(None);
    // Applied by the seal, after its last privileged call.
    linux.set_seccomp(None);

    let process = spec.process_mut().as_mut().ok_or(Error::SpecLacks("process"))?;
    process.set_apparmor_profile(None);
    // The seal locks mounts down and then drops everything; the guest never holds these.
    let for_seal = HashSet::from([Capability::SysAdmin, Capability::Setpcap, Capability::DacReadSearch]);
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(for_seal.clone())
        .effective(for_seal.clone())
        .permitted(for_seal)
        .inheritable(HashSet::new())
        .ambient(HashSet::new())
        .build()
        .map_err(|_| Error::SpecLacks("capabilities"))?;
    process.set_capabilities(Some(capabilities));
    // The guest's environment goes through the plan. HOME stands here because libcontainer would otherwise look it up
    // through the C library, which loads code that the image's /etc/nsswitch.conf names.
    process.set_env(Some(vec!["HOME=/".to_owned()]));
    Ok(spec)
}

/// Takes from each device's mode what its rules don't allow. libcontainer enforces rules in cgroup v1 only, and the guest's
/// process has no capability that would let it past a mode.
fn bound_devices(linux: &mut Linux) {
    let rules = linux.resources().as_ref().and_then(|r| r.devices().clone()).unwrap_or_default();
    for device in linux.devices_mut().iter_mut().flatten() {
        let of_device = |rule: &&LinuxDeviceCgroup| {
            rule.typ().is_none_or(|typ| typ == LinuxDeviceType::A || typ == device.typ())
                && rule.major().is_none_or(|major| major < 0 || major == device.major())
                && rule.minor().is_none_or(|minor| minor < 0 || minor == device.minor())
        };
        let mut denied = 0;
        for rule in rules.iter().filter(of_device) {
            let access = rule.access().as_deref().unwrap_or("rwm");
            for (letter, bits) in [('r', 0o444), ('w', 0o222)] {
                if access.contains(letter) {
                    denied = if rule.allow() { denied & !bits } else { denied | bits };
                }
            }
        }
        let mode = device.file_mode().unwrap_or(0o666);
        device.set_file_mode(Some(mode & !denied));
    }
}

/// The mount, or `None` for one that a guest does without.
fn kept_mount(mount: Mount) -> Result<Option<Mount>, Error> {
    if mount.typ().as_deref().is_some_and(|t| t != "proc" && KERNEL_FILESYSTEMS.contains(&t)) {
        return Ok(None);
    }
    let options = mount.options().as_deref().unwrap_or_default();
    let is_bind = mount.typ().as_deref() == Some("bind") || options.iter().any(|o| o == "bind" || o == "rbind");
    if is_bind
        && let Some(source) = mount.source()
        && is_kernel_filesystem(source)
    {
        return Err(Error::Refused {
            what: format!("volume {} at {}", source.display(), mount.destination().display()),
            why: "it shows processes or the kernel, and a guest shares a process with its runner; use a native \
                  container for it"
                .to_owned(),
        });
    }
    Ok(Some(mount))
}

fn is_kernel_filesystem(path: &PathBuf) -> bool {
    // A source that isn't there is libcontainer's to report.
    statfs::statfs(path).is_ok_and(|stat| {
        [
            statfs::PROC_SUPER_MAGIC,
            statfs::SYSFS_MAGIC,
            statfs::CGROUP_SUPER_MAGIC,
            statfs::CGROUP2_SUPER_MAGIC,
            statfs::DEBUGFS_MAGIC,
            statfs::TRACEFS_MAGIC,
            statfs::SECURITYFS_MAGIC,
            statfs::BPF_FS_MAGIC,
        ]
        .contains(&stat.filesystem_type())
    })
}
