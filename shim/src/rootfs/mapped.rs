//! Root filesystems of containers with a user namespace, whose files are to belong to its ids: containerd says so by the
//! options `uidmap` and `gidmap`, which are no options of a filesystem's.
//!
//! An overlay shows the ids of its layers, so that each of those is mounted with other ids first. That is done by a thread in a
//! mount namespace of its own, which only the finished overlay leaves: killed at any moment, it leaves nothing on the host.
//! Source: containerd's `core/mount/mount_linux.go`, the kernel's `Documentation/filesystems/idmappings.rst`.

use std::{
    env, fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use containerd_shim_protos::types::mount::Mount;
use lighter_runtime_api::id_map::{IdMaps, map_mount};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{error::Error, users};

const LAYERS: &str = "lowerdir=";

/// A mount that is to show other ids.
#[derive(Debug)]
pub(super) struct Mapped<'a> {
    mount: &'a Mount,
    /// Without those that say so.
    options: Vec<String>,
    maps: IdMaps,
}

impl<'a> Mapped<'a> {
    /// `None` for one that shows the ids that its files have.
    pub(super) fn of(mount: &'a Mount) -> Result<Option<Self>, Error> {
        let (mut users, mut groups, mut options) = (None, None, Vec::new());
        for option in &mount.options {
            match option.split_once('=') {
                Some(("uidmap", list)) => users = Some(list),
                Some(("gidmap", list)) => groups = Some(list),
                _ => options.push(option.clone()),
            }
        }
        let maps = match (users, groups) {
            (None, None) => return Ok(None),
            (Some(users), Some(groups)) => users::parse(users).zip(users::parse(groups)),
            _ => None,
        };
        let (users, groups) = maps.ok_or_else(|| Error::Request {
            what: "root filesystem",
            why: format!("its ids are not two lists of inside:outside:count: {}", mount.options.join(",")),
        })?;
        Ok(Some(Self { mount, options, maps: IdMaps { users, groups } }))
    }

    /// Mounts it.
    pub(super) fn mount(&self, target: &Path) -> Result<(), Error> {
        let users = users::make(&self.maps).map_err(Error::system("make the user namespace of the root filesystem"))?;
        if self.mount.type_ == "overlay" {
            let overlay = thread::scope(|scope| {
                let thread = thread::Builder::new().name("overlay".to_owned());
                let thread = thread.spawn_scoped(scope, || self.overlay(users.as_fd(), target));
                let died = || Error::system("mount an overlay")(io::Error::other("its thread died"));
                thread.map_err(Error::system("start a thread"))?.join().unwrap_or_else(|_| Err(died()))
            })?;
            return attach(&overlay, target).map_err(failed(target));
        }
        super::plain(&self.mount.type_, &self.mount.source, &self.options, target)?;
        // On top of it, the same with other ids.
        copy(target, users.as_fd()).and_then(|tree| attach(&tree, target)).map_err(failed(target))
    }

    /// The overlay, nowhere attached. Called in a thread that ends then.
    fn overlay(&self, users: BorrowedFd<'_>, target: &Path) -> Result<OwnedFd, Error> {
        const MERGED: &str = "merged";
        let failed = failed(target);
        // What the host unmounts meanwhile goes here as well.
        let follow = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        let in_memory = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // With it, the thread's working folder is its own.
        unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, follow, None::<&str>))
            .and_then(|()| mount(Some("layers"), target, Some("tmpfs"), in_memory, Some("mode=0700")))
            .map_err(|errno| failed(errno.into()))?;
        env::set_current_dir(target).and_then(|()| fs::create_dir(MERGED)).map_err(&failed)?;
        let mut options = Vec::new();
        for option in &self.options {
            match option.strip_prefix(LAYERS) {
                Some(layers) => {
                    // By short names, of which a page holds enough.
                    let names: io::Result<Vec<String>> = layers
                        .split(':')
                        .enumerate()
                        .map(|(number, layer)| {
                            let name = number.to_string();
                            fs::create_dir(&name)?;
                            attach(&copy(Path::new(layer), users)?, Path::new(&name))?;
                            Ok(name)
                        })
                        .collect();
                    options.push(format!("{LAYERS}{}", names.map_err(&failed)?.join(":")));
                }
                None => options.push(option.clone()),
            }
        }
        let merged = target.join(MERGED);
        let mounted = mount_here(&self.mount.source, &options, Path::new(MERGED));
        mounted.map_err(|errno| failed(errno.into()))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, &merged, flags).map_err(|errno| failed(errno.into()))
    }
}

/// Mounts an overlay. Not by containerd's crate, which does so in another process, for the sake of the working folder.
fn mount_here(source: &str, options: &[String], target: &Path) -> nix::Result<()> {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => {}
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            other => data.push(other),
        }
    }
    mount(Some(source), target, Some("overlay"), flags, Some(data.join(",").as_str()))
}

/// A copy of a mount, from this folder on, with other ids and nowhere attached.
fn copy(folder: &Path, users: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, folder, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    map_mount(tree.as_fd(), users, false)?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// An [`Error::MapRootfs`].
fn failed(target: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = target.to_owned();
    move |source| Error::MapRootfs { path: path.clone(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_options_of_the_filesystem() {
        let mount = |options: &[&str]| Mount {
            type_: "overlay".to_owned(),
            options: options.iter().map(ToString::to_string).collect(),
            ..Mount::default()
        };
        assert!(Mapped::of(&mount(&["lowerdir=/a", "ro"])).unwrap().is_none());
        let both = mount(&["uidmap=0:7:1", "lowerdir=/a:/b", "gidmap=0:8:1"]);
        let mapped = Mapped::of(&both).unwrap().unwrap();
        assert_eq!(mapped.options, ["lowerdir=/a:/b"]);
        assert_eq!(mapped.maps.root(), Some((7, 8)));
        for half in [["uidmap=0:7:1", "gidmap="], ["uidmap=0:7:1", "x=y"], ["x=y", "gidmap=0:7:1"]] {
            assert!(Mapped::of(&mount(&half)).is_err(), "{half:?}");
        }
    }
}
