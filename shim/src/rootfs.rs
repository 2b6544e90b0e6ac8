//! Mounts a container's root filesystem where containerd asks for it, and takes it down again.

mod mapped;

use std::{fs, io, path::Path};

use containerd_shim::mount::{mount_rootfs, umount_recursive};
use containerd_shim_protos::types::mount::Mount;
use nix::mount::MntFlags;

use self::mapped::Mapped;
use crate::error::Error;

/// Mounts all of them at `target`. On an error none of them is left.
pub(crate) fn mount(mounts: &[Mount], target: &Path) -> Result<(), Error> {
    match fs::create_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::system("create folder for root filesystem")(error));
        }
        _ => {}
    }
    for mount in mounts {
        let mounted = match Mapped::of(mount)? {
            Some(mapped) => mapped.mount(target),
            None => plain(&mount.type_, &mount.source, &mount.options, target),
        };
        if let Err(error) = mounted {
            let _ = unmount(target);
            return Err(error);
        }
    }
    Ok(())
}

fn plain(kind: &str, source: &str, options: &[String], target: &Path) -> Result<(), Error> {
    mount_rootfs(Some(kind), Some(source), options, target)
        .map_err(|source| Error::MountRootfs { path: target.to_owned(), source })
}

/// Unmounts everything at and below `target`. Nothing there is no error.
pub(crate) fn unmount(target: &Path) -> Result<(), Error> {
    umount_recursive(target.to_str(), (MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).bits())
        .map_err(|source| Error::MountRootfs { path: target.to_owned(), source })
}
