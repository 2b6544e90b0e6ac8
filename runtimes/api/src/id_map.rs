//! User and group ids that are others on the host: those of a user namespace, and of a mount that shows files as if they
//! belonged to it. The daemon mounts root filesystems by them, a runner makes namespaces and mounts volumes.
//!
//! Source: user_namespaces(7), mount_setattr(2).
#![allow(unsafe_code)]

use std::{
    fmt::Write,
    fs::{self, File},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::libc;

/// A run of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first, as the namespace has it.
    pub inside: u32,
    /// The first, as the host has it.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids of a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// Of users.
    pub users: Vec<IdRange>,
    /// Of groups.
    pub groups: Vec<IdRange>,
}

impl IdMaps {
    /// The host's user and group ids of the namespace's root. `None` where it has none.
    #[must_use]
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((outside(&self.users, 0)?, outside(&self.groups, 0)?))
    }

    /// The host's id of a user. `None` where the namespace has none of it.
    #[must_use]
    pub fn user(&self, inside: u32) -> Option<u32> {
        outside(&self.users, inside)
    }

    /// Gives them to the user namespace that a process has just made, and opens that. The process may end then.
    ///
    /// # Errors
    /// The process has ended, or the kernel does not take the maps: they overlap, or name ids that this process has no right to.
    pub fn give(&self, process: u32) -> io::Result<OwnedFd> {
        let folder = PathBuf::from(format!("/proc/{process}"));
        // Each in one call to write: the kernel takes no more.
        fs::write(folder.join("uid_map"), text(&self.users))?;
        fs::write(folder.join("gid_map"), text(&self.groups))?;
        Ok(File::open(folder.join("ns/user"))?.into())
    }
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside).filter(|&offset| offset < range.count)?;
        range.outside.checked_add(offset)
    })
}

/// As the kernel reads them, a line each.
fn text(ranges: &[IdRange]) -> String {
    ranges.iter().fold(String::new(), |mut text, IdRange { inside, outside, count }| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{inside} {outside} {count}");
        text
    })
}

/// Has a mount that is nowhere attached yet show its files as a user namespace's: what belongs to id 0 in the filesystem
/// belongs to the namespace's id 0, and the other way round for files that are made there.
///
/// # Errors
/// The filesystem can't do it (EINVAL), or the kernel is older than 5.12 (ENOSYS).
pub fn map_mount(mount: BorrowedFd<'_>, users: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let users = u64::try_from(users.as_raw_fd()).map_err(io::Error::other)?;
    let change = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd: users };
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and the kernel reads `change`, which is as long as it is told.
    let changed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    match changed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_their_range() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let ranges = [range(0, 200_000, 10), range(10, 5, 1), range(100, u32::MAX, 5)];
        let table = [
            (0, Some(200_000)),
            (9, Some(200_009)),
            (10, Some(5)),
            (11, None),
            (99, None),
            (100, Some(u32::MAX)),
            (101, None),
        ];
        for (id, expected) in table {
            assert_eq!(outside(&ranges, id), expected, "{id}");
        }
        assert_eq!(text(&ranges[..2]), "0 200000 10\n10 5 1\n");
        let maps = IdMaps { users: vec![range(0, 7, 1)], groups: vec![range(1, 8, 1)] };
        assert_eq!(maps.root(), None, "a group without root");
    }
}
