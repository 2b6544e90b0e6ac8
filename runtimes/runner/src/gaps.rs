//! Where libcontainer 0.7 gives a native program more than its spec says. WebAssembly guests see nothing of all this: their
//! sandbox has neither cgroups nor a way to mount.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use lighter_oci::Cgroup;
use oci_spec::runtime::{Mount, Spec};

use crate::Error;

/// Where the hierarchies are mounted. Source: systemd's file-hierarchy(7), and what libcgroups takes for granted.
const ROOT: &str = "/sys/fs/cgroup";

/// Whether there is but one hierarchy: cgroup v2.
pub(crate) fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Narrows a spec so that libcontainer does what the spec says.
pub(crate) fn close(sandbox: &mut Spec, rootfs: &Path) {
    let mut mounts = sandbox.mounts().clone().unwrap_or_default();
    for mount in mounts.iter_mut().filter(|mount| mount.typ().as_deref() == Some("tmpfs")) {
        keep_mode(mount, rootfs);
    }
    sandbox.set_mounts(Some(mounts));
    let hierarchies = if is_unified() { Vec::new() } else { folders_in(Path::new(ROOT)) };
    let read_only = cgroups_to_protect(sandbox, &hierarchies);
    let private = !sandbox.mounts().iter().flatten().any(|mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        options.iter().any(|o| matches!(o.as_str(), "shared" | "rshared" | "slave" | "rslave"))
    });
    let Some(linux) = sandbox.linux_mut().as_mut() else { return };
    // It mounts v1 hierarchies writable, whatever the mount's options are: a program could lift its own limits.
    let mut paths = linux.readonly_paths().clone().unwrap_or_default();
    paths.extend(read_only);
    linux.set_readonly_paths(Some(paths));
    // It leaves each mount a slave of the host's, and does not look at the mounts' own words.
    if private && linux.rootfs_propagation().as_deref().is_none_or(str::is_empty) {
        linux.set_rootfs_propagation(Some("private".to_owned()));
    }
}

/// Moves this process, and so the container that it is about to fork, into the container's cgroup in those hierarchies that
/// libcontainer leaves alone beside v1's: systemd's and v2's. It would show the program all of them, from their roots.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn join_other_hierarchies(cgroup: &Cgroup) -> Result<(), Error> {
    if cgroup.systemd || is_unified() {
        return Ok(());
    }
    for hierarchy in ["systemd", "unified"] {
        let root = Path::new(ROOT).join(hierarchy);
        if !root.join("cgroup.procs").exists() {
            continue;
        }
        let folder = root.join(cgroup.path.strip_prefix("/").unwrap_or(&cgroup.path));
        let joined = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("cgroup.procs"), "0"));
        joined.map_err(|source| Error::JoinCgroup { path: folder, source })?;
    }
    Ok(())
}

/// Gives a memory filesystem the mode of the folder that it covers, where its options have none: anyone could write to it.
/// Source: runc's `libcontainer/rootfs_linux.go`.
fn keep_mode(mount: &mut Mount, rootfs: &Path) {
    let mut options = mount.options().clone().unwrap_or_default();
    if options.iter().any(|option| option.starts_with("mode=")) {
        return;
    }
    let covered = pathrs::Root::open(rootfs).and_then(|root| root.resolve(mount.destination()));
    let metadata = covered.ok().and_then(|handle| File::from(OwnedFd::from(handle)).metadata().ok());
    if let Some(metadata) = metadata.filter(Metadata::is_dir) {
        options.push(format!("mode={:o}", metadata.permissions().mode() & 0o7777));
        mount.set_options(Some(options));
    }
}

/// The paths, as the container sees them, of hierarchies that its spec mounts read-only.
fn cgroups_to_protect(sandbox: &Spec, hierarchies: &[PathBuf]) -> Vec<String> {
    let mounts = sandbox.mounts().iter().flatten();
    let read_only = mounts.filter(|mount| {
        mount.typ().as_deref() == Some("cgroup") && mount.options().iter().flatten().any(|option| option == "ro")
    });
    read_only
        .flat_map(|mount| hierarchies.iter().filter_map(|folder| Some(mount.destination().join(folder.file_name()?))))
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        // Links are second names.
        Ok(entries.into_iter().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect())
    };
    list().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec(cgroup_options: &str, volume_options: &str, linux: &str) -> Spec {
        let json = format!(
            r#"{{"ociVersion":"1.1.0","mounts":[
                {{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid"{cgroup_options}]}},
                {{"destination":"/v","type":"bind","source":"/v","options":["rbind"{volume_options}]}}],
                "linux":{{"readonlyPaths":["/proc/sys"]{linux}}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn cgroups_are_protected_where_the_spec_says_so() {
        let hierarchies = ["/sys/fs/cgroup/cpu,cpuacct".into(), "/sys/fs/cgroup/systemd".into()];
        let protected = |options| cgroups_to_protect(&spec(options, "", ""), &hierarchies);
        assert_eq!(protected(r#","ro""#), ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"]);
        assert!(protected("").is_empty());
    }

    #[test]
    fn a_memory_filesystem_has_the_mode_of_what_it_covers() {
        let rootfs = tempfile::tempdir().unwrap();
        for (name, mode) in [("run", 0o755), ("tmp", 0o1777)] {
            fs::create_dir(rootfs.path().join(name)).unwrap();
            fs::set_permissions(rootfs.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let options = |destination: &str, given: &str| {
            let json = format!(r#"{{"destination":"{destination}","type":"tmpfs","options":["{given}"]}}"#);
            let mut mount: Mount = serde_json::from_str(&json).unwrap();
            keep_mode(&mut mount, rootfs.path());
            mount.options().clone().unwrap().join(",")
        };
        assert_eq!(options("/run", "nosuid"), "nosuid,mode=755");
        assert_eq!(options("/tmp", "nosuid"), "nosuid,mode=1777");
        assert_eq!(options("/run", "mode=700"), "mode=700");
        assert_eq!(options("/new", "nosuid"), "nosuid");
    }

    #[test]
    fn mounts_are_private_unless_one_is_to_follow_the_host() {
        let propagation = |volume, linux| {
            let mut spec = spec("", volume, linux);
            close(&mut spec, Path::new("/nowhere"));
            let linux = spec.linux().as_ref().unwrap();
            assert!(linux.readonly_paths().as_ref().unwrap().contains(&"/proc/sys".to_owned()));
            linux.rootfs_propagation().clone()
        };
        assert_eq!(propagation(r#","rprivate""#, "").as_deref(), Some("private"));
        assert_eq!(propagation(r#","rslave""#, ""), None);
        assert_eq!(propagation("", r#","rootfsPropagation":"shared""#).as_deref(), Some("shared"));
    }
}
