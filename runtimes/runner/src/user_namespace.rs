//! For a runner that is not root: a user namespace in which it may make all the others.
//!
//! The user is mapped to root in it, alone: the guest has the user's own rights to files, and no others. Entered before
//! libcontainer builds the sandbox, which then finds itself privileged.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, getegid, geteuid, pivot_root},
};

use crate::Error;

/// What may forbid it: a kernel parameter, the value that does, and what to set.
const FORBIDDING: &[(&str, &str, &str)] = &[
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
];
/// Where libcgroups looks for cgroups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Enters it, with a mount namespace that shows no cgroups.
///
/// # Errors
/// The system forbids it; the message says which setting does.
pub(crate) fn enter() -> Result<(), Error> {
    let failed = |operation| move |error: io::Error| refused(operation, &error);
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(io::Error::from)
        .map_err(failed("make a user namespace"))?;
    // Only who can't change groups may map one without privileges (CVE-2014-8989).
    fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {user} 1")))
        .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {group} 1")))
        .map_err(failed("map the user"))?;
    hide_cgroups().map_err(failed("mount in a user namespace"))
}

/// Moves to a root folder that has everything but `/sys`.
///
/// libcontainer puts every container into a cgroup, which this user may not make (in v1; in v2 only under a systemd that
/// delegates). Where it finds an empty folder, it takes the system for one without controllers. Mounting over the
/// hierarchies is not enough: `/proc/self/mountinfo` still lists them.
fn hide_cgroups() -> io::Result<()> {
    let root = Path::new("/sys");
    let recursive = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755,size=64k"))?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type()?;
        if from == root {
            fs::create_dir_all(root.join(CGROUPS.trim_start_matches('/')))?;
        } else if kind.is_dir() {
            fs::create_dir(&to)?;
            mount(Some(&from), &to, None::<&str>, recursive, None::<&str>)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
        }
    }
    // The old root lies on top of the new one for a moment. Source: pivot_root(2), "pivot_root(".", ".")".
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

/// The error, and the setting that most likely causes it.
fn refused(operation: &'static str, error: &io::Error) -> Error {
    Error::UserNamespace { operation, why: error.to_string(), cure: cure(Path::new("/proc/sys")) }
}

fn cure(settings: &Path) -> String {
    let forbids = |(name, value, _): &&(&str, &str, &str)| {
        let path: PathBuf = settings.join(name);
        fs::read_to_string(path).is_ok_and(|text| text.trim() == *value)
    };
    match FORBIDDING.iter().find(forbids) {
        Some((_, _, setting)) => format!("`sysctl -w {setting}` as root allows it"),
        None => "a security module or a container's seccomp profile forbids it".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named() {
        let settings = tempfile::tempdir().unwrap();
        for folder in ["user", "kernel"] {
            fs::create_dir(settings.path().join(folder)).unwrap();
        }
        let table = [
            ("user/max_user_namespaces", "96365\n", "security module"),
            ("kernel/apparmor_restrict_unprivileged_userns", "0\n", "security module"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1\n", "kernel.apparmor_restrict_unprivileged_userns=0"),
            ("kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone=1"),
            ("user/max_user_namespaces", "0\n", "user.max_user_namespaces=10000"),
        ];
        for (name, value, expected) in table {
            fs::write(settings.path().join(name), value).unwrap();
            let cure = cure(settings.path());
            assert!(cure.contains(expected), "{name}={value}: {cure}");
        }
    }
}
