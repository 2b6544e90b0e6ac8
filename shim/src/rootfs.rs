//! Mounts a container's root filesystem where containerd asks for it, and takes it down again.

use std::{fs, io, path::Path};

use containerd_shim::mount::{mount_rootfs, umount_recursive};
use containerd_shim_protos::types::mount::Mount;
use nix::mount::MntFlags;

use crate::error::Error;

/// Mounts all of them at `target`. On an error none of them is left.
pub(crate) fn mount(mounts: &[Mount], target: &Path) -> Result<(), Error> {
    let failed = |source| Error::MountRootfs { path: target.to_owned(), source };
    match fs::create_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::system("create folder for root filesystem")(error));
        }
        _ => {}
    }
    for mount in mounts {
        let mounted = mount_rootfs(Some(&mount.type_), Some(&mount.source), &mount.options, target);
        if let Err(source) = mounted {
            let _ = unmount(target);
            return Err(failed(source));
        }
    }
    Ok(())
}

/// Unmounts everything at and below `target`. Nothing there is no error.
pub(crate) fn unmount(target: &Path) -> Result<(), Error> {
    umount_recursive(target.to_str(), (MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).bits())
        .map_err(|source| Error::MountRootfs { path: target.to_owned(), source })
}
