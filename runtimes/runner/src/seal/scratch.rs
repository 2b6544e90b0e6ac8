//! An empty root folder for a process that needs files and is to see none.

use std::path::Path;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot},
};

use super::failed;
use crate::Error;

/// Any folder that is there; nobody else sees what is mounted on it.
const PLACE: &str = "/proc";

/// Moves to a root folder in memory, of at most so many bytes, which goes with the process.
///
/// There is no way out of it for a process without capabilities and without descriptors of folders.
///
/// # Errors
/// A step failed; a user who isn't root needs user namespaces.
pub(super) fn enter(bytes: u64) -> Result<(), Error> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS),
        made => made,
    }
    .map_err(failed("make a mount namespace"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(failed("keep mounts from the host"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=700,size={bytes},nr_inodes=64");
    mount(Some("tmpfs"), Path::new(PLACE), Some("tmpfs"), flags, Some(&*options))
        .and_then(|()| chroot(PLACE))
        .and_then(|()| chdir("/"))
        .map_err(failed("enter an empty root folder"))
}
