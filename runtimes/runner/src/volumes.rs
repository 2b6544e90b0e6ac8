//! The volumes of a container with a user namespace, where its root can reach them, and shown as it is to see them.
//!
//! libcontainer mounts as the container's root, who is nobody on the host and kept out of most folders that volumes are in,
//! and it refuses ID-mapped mounts. So the runner mounts them first, as root, by numbers in a folder in memory, and the spec
//! names those in place of the sources. All that is in a mount namespace of the runner's own, of which the container's is a
//! copy that is left behind with the old root: on the host there is never anything to clean up.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use lighter_runtime_api::id_map::map_mount;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{SFlag, fstat},
};
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{
    Error, gaps,
    users::{self, Users},
};

/// Name of the folder in the runner's state.
const PLACE: &str = "volumes";

/// Mounts them, and names them in the spec. `state` must be a folder that the container's root can enter.
///
/// # Errors
/// A volume isn't there, its filesystem can't be shown with other ids, or the kernel refuses.
pub(crate) fn bring(sandbox: &mut Spec, users: Option<&Users>, state: &Path) -> Result<(), Error> {
    let own = users::maps_of(sandbox);
    let mut mounts = sandbox.mounts().clone().unwrap_or_default();
    let mut trees = Vec::new();
    for mount in mounts.iter_mut().filter(|mount| is_bind(mount)) {
        let wish = Wish::of(mount);
        // Everybody may enter the folders of cgroups, and the container's own is not there before the container.
        let in_reach = users.is_none() || mount.source().as_deref().is_some_and(gaps::is_cgroup);
        if in_reach && !wish.mapped {
            continue;
        }
        let failed = |operation| volume_error(mount, operation);
        let tree = open(mount).map_err(failed("open it"))?;
        if wish.mapped {
            let theirs = users::maps(mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref());
            let map = |users: &Users| map_mount(tree.as_fd(), users.as_fd(), wish.recursive);
            let mapped = match (theirs, users) {
                (None, _) if wish.ids => Err(io::Error::other("give it both uidMappings and gidMappings")),
                // The common case, which takes no namespace more.
                (theirs, Some(users)) if theirs.is_none() || theirs == own => map(users),
                (Some(theirs), _) => map(&Users::make(&theirs)?),
                (None, _) => Err(io::Error::other("there are no ids; give it uidMappings and gidMappings")),
            };
            mapped.map_err(|error| failed("show it with other ids")(explain(error)))?;
        }
        let name = PathBuf::from(trees.len().to_string());
        trees.push((mount.source().clone().unwrap_or_default(), mount.destination().clone(), tree));
        mount.set_source(Some(state.join(PLACE).join(name)));
        mount.set_uid_mappings(None).set_gid_mappings(None);
        let options = mount.options().clone().unwrap_or_default();
        mount.set_options(Some(options.into_iter().filter(|option| !MAPPED.contains(&option.as_str())).collect()));
    }
    if trees.is_empty() {
        return Ok(());
    }
    let place = place(state)?;
    for (number, (path, destination, tree)) in trees.into_iter().enumerate() {
        let target = place.join(number.to_string());
        attach(&tree, &target).map_err(|source| Error::Volume {
            path,
            destination,
            operation: "put it in place",
            source,
        })?;
    }
    sandbox.set_mounts(Some(mounts));
    Ok(())
}

/// Makes the runner's state a folder that the container's root can enter, as containerd makes the bundle.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn admit_root(sandbox: &Spec, state: &Path) -> io::Result<()> {
    let Some((_, group)) = users::root_of(sandbox) else { return Ok(()) };
    chown(state, None, Some(group))?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o710))
}

/// Options of a mount that shows other ids. Source: runtime-spec `config.md#linux-mount-options`.
const MAPPED: [&str; 2] = ["idmap", "ridmap"];

/// How a volume is to be shown.
struct Wish {
    mapped: bool,
    /// Whether it names ids, which may be others than the container's.
    ids: bool,
    /// With what is mounted in it.
    recursive: bool,
}

impl Wish {
    fn of(mount: &Mount) -> Self {
        let has = |word: &str| mount.options().iter().flatten().any(|option| option == word);
        let some = |list: &Option<Vec<LinuxIdMapping>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let ids = some(mount.uid_mappings()) || some(mount.gid_mappings());
        Self { mapped: ids || MAPPED.iter().any(|word| has(word)), ids, recursive: has("ridmap") }
    }
}

fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind") || options.any(|option| option == "bind" || option == "rbind")
}

/// A copy of what is mounted there, which is nowhere attached yet. Of single mounts no others come along: they could not be
/// left away later, by the container's root.
fn open(mount: &Mount) -> io::Result<OwnedFd> {
    let path = mount.source().as_deref().ok_or_else(|| io::Error::other("the spec names no source"))?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if mount.options().iter().flatten().any(|option| option == "rbind") {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(CWD, path, flags)?)
}

/// Makes the folder, in a mount namespace of this process's own. Others see nothing of what is mounted there.
fn place(state: &Path) -> Result<PathBuf, Error> {
    let failed = |operation| move |errno: nix::Error| Error::VolumesPlace { operation, source: errno.into() };
    let place = state.join(PLACE);
    DirBuilder::new()
        .mode(0o700)
        .create(&place)
        .map_err(|source| Error::VolumesPlace { operation: "create the folder", source })?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    // The mount that the folder is in, wherever that begins: in it, and no other, the host would see ours.
    let follow = |path: &Path| mount(None::<&str>, path, None::<&str>, MsFlags::MS_SLAVE, None::<&str>);
    let enclosing = place.ancestors().map(follow).find(|made| *made != Err(nix::Error::EINVAL));
    enclosing.unwrap_or(Err(nix::Error::EINVAL)).map_err(failed("keep it from the host"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("volumes"), &place, Some("tmpfs"), flags, Some("mode=0755"))
        .map_err(failed("mount a folder in memory"))?;
    Ok(place)
}

fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let kind = SFlag::from_bits_truncate(fstat(tree)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        fs::create_dir(target)?;
    } else {
        File::create_new(target)?;
    }
    Ok(move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What the kernel's error means here.
fn explain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EINVAL) => io::Error::other(
            "its filesystem can't be shown with other ids, or is shown so already; use a volume on another filesystem, or a \
             pod without a user namespace",
        ),
        _ => error,
    }
}

fn volume_error(mount: &Mount, operation: &'static str) -> impl Fn(io::Error) -> Error + use<> {
    let (path, destination) = (mount.source().clone().unwrap_or_default(), mount.destination().clone());
    move |source| Error::Volume { path: path.clone(), destination: destination.clone(), operation, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::fs::MetadataExt, thread};

    use super::*;

    /// A spec with volumes, each a destination and what else its mount has.
    fn spec(source: &Path, mounts: &[(&str, &str)]) -> Spec {
        let mounts = mounts.iter().map(|(destination, more)| {
            format!(r#"{{"destination":"{destination}","type":"bind","source":"{}"{more}}}"#, source.display())
        });
        let mounts = mounts.collect::<Vec<_>>().join(",");
        let ids = r#"[{"containerID":0,"hostID":200000,"size":65536}]"#;
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.2.1","mounts":[{mounts}],"process":{{"cwd":"/","user":{{"uid":0,"gid":0}}}},
                "linux":{{"namespaces":[{{"type":"user"}}],"uidMappings":{ids},"gidMappings":{ids}}}}}"#
        ))
        .unwrap()
    }

    const IDS: &str = r#","uidMappings":[{"containerID":0,"hostID":7,"size":1}],"gidMappings":[{"containerID":0,"hostID":8,"size":1}]"#;

    #[test]
    fn volumes_are_where_root_of_the_container_can_reach_them_with_the_ids_it_is_to_see() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: mounting takes root");
        }
        let folder = tempfile::tempdir().unwrap();
        let (source, state) = (folder.path().join("closed/volume"), folder.path().join("state"));
        fs::create_dir_all(source.join("below")).unwrap();
        fs::create_dir(&state).unwrap();
        fs::set_permissions(folder.path().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // What is mounted is the thread's, and goes with it.
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            mount(Some("a"), &source, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            fs::create_dir(source.join("below")).unwrap();
            mount(Some("b"), &source.join("below"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            fs::write(source.join("below/file"), "").unwrap();
            let mapped = format!(r#","options":["rbind","ridmap","ro"]{IDS}"#);
            let top = format!(r#","options":["rbind"]{IDS}"#);
            let mounts = [
                ("/plain", r#","options":["rbind"]"#),
                ("/alone", r#","options":["bind"]"#),
                ("/own", r#","options":["rbind","idmap"]"#),
                ("/mapped", &*mapped),
                ("/top", &*top),
            ];
            let mut spec = spec(&source, &mounts);
            let users = Users::of(&mut spec).unwrap();
            admit_root(&spec, &state).unwrap();
            bring(&mut spec, users.as_ref(), &state).unwrap();
            let owner = |mount: &Mount, name: &str| {
                fs::metadata(mount.source().as_ref().unwrap().join(name)).ok().map(|file| (file.uid(), file.gid()))
            };
            let of = |mount: &Mount| {
                assert!(mount.uid_mappings().is_none() && mount.gid_mappings().is_none());
                (mount.options().clone().unwrap().join(","), owner(mount, "."), owner(mount, "below/file"))
            };
            let (root, own, other) = (Some((0, 0)), Some((200_000, 200_000)), Some((7, 8)));
            let expected = [
                ("rbind", root, root),
                ("bind", root, None),
                ("rbind", own, root),
                ("rbind,ro", other, other),
                ("rbind", other, root),
            ];
            let brought: Vec<_> = spec.mounts().as_ref().unwrap().iter().map(of).collect();
            assert_eq!(brought, expected.map(|(options, top, below)| (options.to_owned(), top, below)));
            let metadata = fs::metadata(&state).unwrap();
            assert_eq!((metadata.gid(), metadata.mode() & 0o777), (200_000, 0o710));
        };
        thread::scope(|scope| scope.spawn(run).join()).unwrap();
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn what_cannot_be_shown_is_an_error_that_names_it() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: mounting takes root");
        }
        let state = tempfile::tempdir().unwrap();
        let error = |source: &str, more: &str| {
            let mut spec = spec(Path::new(source), &[("/v", more)]);
            let users = Users::of(&mut spec).unwrap();
            bring(&mut spec, users.as_ref(), state.path()).unwrap_err().to_string()
        };
        let missing = error("/nonexistent/v", "");
        assert!(missing.starts_with("mount /nonexistent/v at /v: open it: No such file"), "{missing}");
        let unfit = error("/proc/sys", r#","options":["bind","idmap"]"#);
        assert!(unfit.contains("can't be shown with other ids"), "{unfit}");
    }

    #[test]
    fn the_hosts_users_need_no_place() {
        let state = tempfile::tempdir().unwrap();
        let mut spec = spec(Path::new("/nonexistent"), &[("/v", "")]);
        spec.linux_mut().as_mut().unwrap().set_namespaces(None);
        assert!(Users::of(&mut spec).unwrap().is_none());
        bring(&mut spec, None, state.path()).unwrap();
        assert_eq!(spec.mounts().as_ref().unwrap()[0].source().as_deref(), Some(Path::new("/nonexistent")));
        assert!(fs::read_dir(state.path()).unwrap().next().is_none());
    }
}
