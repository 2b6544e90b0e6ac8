//! Takes `/proc`, `/sys` and their like out of the mount namespace, and device files and programs out of what remains.
//!
//! They come in with libcontainer's `/proc` and with volumes of whole trees (`-v /:/host`); as volumes of their own they
//! were refused when the container was created.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStringExt, fs::FileTypeExt},
    path::{Path, PathBuf},
};

use lighter_oci::KERNEL_FILESYSTEMS;
use nix::{
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::{failed, open_in_proc};
use crate::Error;

/// One line of `/proc/self/mountinfo`. Source: proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
struct MountPoint {
    id: u32,
    parent: u32,
    path: PathBuf,
    options: MsFlags,
    filesystem: String,
}

/// Detaches kernel filesystems and makes every other mount `nodev,nosuid,noexec`; `/dev` keeps its device files.
///
/// What another mount covers has no path, and nobody can take the cover away: it is left alone.
pub(super) fn lock_down(proc: &File) -> Result<(), Error> {
    let mounts = loop {
        let mounts = visible(&read(proc)?);
        let (kernel, others): (Vec<_>, Vec<_>) =
            mounts.into_iter().partition(|mount| KERNEL_FILESYSTEMS.contains(&mount.filesystem.as_str()));
        if kernel.is_empty() {
            break others;
        }
        // What was mounted last first, so that nothing is looked for below a mount that is gone. Each may have covered
        // something, so the rest is looked at again.
        for mount in kernel.iter().rev() {
            umount2(&mount.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .map_err(|errno| failed("hide kernel filesystem")(format!("{}: {errno}", mount.path.display())))?;
        }
    };
    for point in &mounts {
        let mut flags = point.options | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        if !holds_devices(&point.path) {
            flags |= MsFlags::MS_NODEV;
        }
        mount(None::<&str>, &point.path, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, None::<&str>)
            .map_err(|errno| failed("lock mount down")(format!("{}: {errno}", point.path.display())))?;
    }
    Ok(())
}

fn read(proc: &File) -> Result<Vec<MountPoint>, Error> {
    let mut text = String::new();
    open_in_proc(proc, "self/mountinfo", OFlag::O_RDONLY)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(failed("read mounts"))?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Those that a path leads to: no other mount is at or above their path, but those that they are mounted on.
fn visible(mounts: &[MountPoint]) -> Vec<MountPoint> {
    let is_ancestor = |id: u32, mount: &MountPoint| {
        let mut parent = mount.parent;
        // A chain can't be longer than the list, unless the kernel lies.
        for _ in 0..mounts.len() {
            if parent == id {
                return true;
            }
            match mounts.iter().find(|m| m.id == parent) {
                Some(next) => parent = next.parent,
                None => break,
            }
        }
        false
    };
    let covers = |cover: &MountPoint, mount: &MountPoint| {
        cover.id != mount.id && mount.path.starts_with(&cover.path) && !is_ancestor(cover.id, mount)
    };
    mounts.iter().filter(|mount| !mounts.iter().any(|cover| covers(cover, mount))).cloned().collect()
}

/// `/dev` itself, and single device files that were mounted into it.
fn holds_devices(path: &Path) -> bool {
    path == Path::new("/dev")
        || fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() || m.file_type().is_block_device())
}

fn parse(line: &str) -> Option<MountPoint> {
    let (left, right) = line.split_once(" - ")?;
    let fields: Vec<&str> = left.split(' ').collect();
    let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.get(4)?)));
    let options = fields.get(5)?.split(',').fold(MsFlags::empty(), |flags, option| {
        flags
            | match option {
                "ro" => MsFlags::MS_RDONLY,
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            }
    });
    let (id, parent) = (fields.first()?.parse().ok()?, fields.get(1)?.parse().ok()?);
    Some(MountPoint { id, parent, path, options, filesystem: right.split(' ').next()?.to_owned() })
}

/// Space, tab, newline and backslash stand as three octal digits after a backslash.
fn unescape(field: &str) -> Vec<u8> {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(value) if byte == b'\\' => {
                out.push(value);
                at += 4;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_mountinfo() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime,nosuid master:1 - ext3 /dev/root rw,errors=continue";
        let expected = MountPoint {
            id: 36,
            parent: 35,
            path: "/mnt 2".into(),
            options: MsFlags::MS_NOATIME | MsFlags::MS_NOSUID,
            filesystem: "ext3".to_owned(),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(unescape(r"a\134b\"), br"a\b\");
    }

    #[test]
    fn what_is_covered_has_no_path() {
        let mount = |id, parent, path: &str| MountPoint {
            id,
            parent,
            path: path.into(),
            options: MsFlags::empty(),
            filesystem: "tmpfs".to_owned(),
        };
        let mounts = [
            mount(1, 0, "/"),
            mount(2, 1, "/etc/hosts"),
            // Over the folder that the last one is in.
            mount(3, 1, "/etc"),
            mount(4, 3, "/etc/deep"),
            // One on top of the other.
            mount(5, 1, "/twice"),
            mount(6, 5, "/twice"),
            mount(7, 1, "/etcetera"),
        ];
        let left: Vec<u32> = visible(&mounts).iter().map(|mount| mount.id).collect();
        assert_eq!(left, [1, 3, 4, 6, 7]);
        // Of the host, below which a container's root may lie, nothing is known.
        assert_eq!(visible(&[mount(9, 8, "/")]).len(), 1);
    }
}
