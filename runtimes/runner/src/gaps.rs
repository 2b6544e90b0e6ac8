//! Where libcontainer 0.7 gives a native program more than its spec says. WebAssembly guests see nothing of all this: their
//! sandbox has neither cgroups nor a way to mount.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use lighter_oci::Cgroup;
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use crate::Error;

/// Where the hierarchies are mounted. Source: systemd's file-hierarchy(7), and what libcgroups takes for granted.
const ROOT: &str = "/sys/fs/cgroup";

/// Whether there is but one hierarchy: cgroup v2.
pub(crate) fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Makes the folders in v2 that a container's cgroup will be in. libcgroups takes it for a failure that somebody else makes one
/// at the same time, as the first two containers of a node do; what it then still can't make, it says.
pub(crate) fn make_parents(cgroup: &Cgroup) {
    let folder = Path::new(ROOT).join(cgroup.path.strip_prefix("/").unwrap_or(&cgroup.path));
    if let Some(parent) = folder.parent().filter(|_| is_unified() && !cgroup.systemd) {
        let _ = fs::create_dir_all(parent);
    }
}

/// Whether a path is one of the host's cgroups, or beside them.
pub(crate) fn is_cgroup(path: &Path) -> bool {
    path.starts_with(ROOT)
}

/// Narrows a spec so that libcontainer does what the spec says.
pub(crate) fn close(sandbox: &mut Spec, rootfs: &Path) {
    let hierarchies = if is_unified() { Vec::new() } else { folders_in(Path::new(ROOT)) };
    let mut mounts = sandbox.mounts().clone().unwrap_or_default();
    if !hierarchies.is_empty() && joins_processes(sandbox) {
        let cgroup = sandbox.linux().as_ref().and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
        mounts = mounts.into_iter().flat_map(|mount| spelt_out(mount, &hierarchies, &cgroup)).collect();
    }
    for mount in mounts.iter_mut().filter(|mount| mount.typ().as_deref() == Some("tmpfs")) {
        keep_mode(mount, rootfs);
    }
    sandbox.set_mounts(Some(mounts));
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
    // It leaves each mount a slave of the host's, and does not look at the mounts' own words. Of the words for the whole tree,
    // it knows those without the `r` only, and takes them for those with it.
    let whole = match linux.rootfs_propagation().as_deref().unwrap_or_default() {
        "" if private => Some("private"),
        "rprivate" => Some("private"),
        "rslave" => Some("slave"),
        "rshared" => Some("shared"),
        _ => None,
    };
    if let Some(whole) = whole {
        linux.set_rootfs_propagation(Some(whole.to_owned()));
    }
}

/// Whether the container has the processes of another in its PID namespace.
fn joins_processes(sandbox: &Spec) -> bool {
    let namespaces = sandbox.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_some())
}

/// The mount of v1's hierarchies as what it comes to: a folder in memory, and in it the container's own cgroup of each. To do
/// that, libcontainer looks for its own pid in the `/proc` of the host, which in a PID namespace that was joined is nobody's
/// there, or another's.
fn spelt_out(mount: Mount, hierarchies: &[PathBuf], cgroup: &Path) -> Vec<Mount> {
    if mount.typ().as_deref() != Some("cgroup") {
        return vec![mount];
    }
    let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect::<Vec<_>>());
    let mut folder = Mount::default();
    folder.set_typ(Some("tmpfs".to_owned())).set_source(Some("tmpfs".into()));
    folder.set_destination(mount.destination().clone());
    folder.set_options(words(&["noexec", "nosuid", "nodev", "mode=755"]));
    let access = if mount.options().iter().flatten().any(|option| option == "ro") { "ro" } else { "rw" };
    let binds = hierarchies.iter().filter_map(|hierarchy| {
        let mut bind = Mount::default();
        bind.set_typ(Some("bind".to_owned()));
        bind.set_source(Some(hierarchy.join(cgroup.strip_prefix("/").unwrap_or(cgroup))));
        bind.set_destination(mount.destination().join(hierarchy.file_name()?));
        bind.set_options(words(&["rbind", "noexec", "nosuid", "nodev", access]));
        Some(bind)
    });
    [folder].into_iter().chain(binds).collect()
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
        assert_eq!(propagation(r#","rslave""#, r#","rootfsPropagation":"rslave""#).as_deref(), Some("slave"));
        assert_eq!(propagation(r#","rshared""#, r#","rootfsPropagation":"rshared""#).as_deref(), Some("shared"));
        assert_eq!(propagation("", r#","rootfsPropagation":"shared""#).as_deref(), Some("shared"));
    }

    #[test]
    fn hierarchies_are_spelt_out() {
        let hierarchies = ["/sys/fs/cgroup/cpu,cpuacct".into(), "/sys/fs/cgroup/memory".into()];
        let spelt = |options| {
            let mounts = spec(options, "", "").mounts().clone().unwrap();
            let mounts = mounts.into_iter().flat_map(|mount| spelt_out(mount, &hierarchies, Path::new("/k8s.io/c")));
            let line = |mount: Mount| {
                let source = mount.source().clone().unwrap_or_default();
                let read_only = mount.options().iter().flatten().any(|option| option == "ro");
                format!("{} {} {read_only}", source.display(), mount.destination().display())
            };
            mounts.map(line).collect::<Vec<_>>()
        };
        let expected = |read_only: bool| {
            vec![
                "tmpfs /sys/fs/cgroup false".to_owned(),
                format!("/sys/fs/cgroup/cpu,cpuacct/k8s.io/c /sys/fs/cgroup/cpu,cpuacct {read_only}"),
                format!("/sys/fs/cgroup/memory/k8s.io/c /sys/fs/cgroup/memory {read_only}"),
                "/v /v false".to_owned(),
            ]
        };
        assert_eq!(spelt(r#","ro""#), expected(true));
        assert_eq!(spelt(""), expected(false));
    }

    #[test]
    fn a_pid_namespace_of_anothers_is_one_with_a_path() {
        let joins =
            |namespace: &str| joins_processes(&spec("", "", &format!(r#","namespaces":[{{"type":{namespace}}}]"#)));
        assert!(joins(r#""pid","path":"/proc/1/ns/pid""#));
        assert!(!joins(r#""pid""#));
        assert!(!joins(r#""network","path":"/proc/1/ns/net""#));
    }
}
