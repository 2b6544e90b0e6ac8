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
#[derive(Debug, PartialEq, Eq)]
struct MountPoint {
    path: PathBuf,
    options: MsFlags,
    filesystem: String,
}

/// Detaches kernel filesystems and makes every other mount `nodev,nosuid,noexec`; `/dev` keeps its device files.
pub(super) fn lock_down(proc: &File) -> Result<(), Error> {
    let mut text = String::new();
    open_in_proc(proc, "self/mountinfo", OFlag::O_RDONLY)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(failed("read mounts"))?;
    let mounts: Vec<MountPoint> = text.lines().filter_map(parse).collect();
    // What was mounted last first, so that nothing is looked for below a mount that is gone.
    for point in mounts.iter().rev() {
        if KERNEL_FILESYSTEMS.contains(&point.filesystem.as_str()) {
            umount2(&point.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .map_err(failed("hide kernel filesystem"))?;
        }
    }
    for point in &mounts {
        let hidden = mounts
            .iter()
            .any(|m| KERNEL_FILESYSTEMS.contains(&m.filesystem.as_str()) && point.path.starts_with(&m.path));
        if !hidden {
            let mut flags = point.options | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            if !holds_devices(&point.path) {
                flags |= MsFlags::MS_NODEV;
            }
            mount(
                None::<&str>,
                &point.path,
                None::<&str>,
                MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags,
                None::<&str>,
            )
            .map_err(failed("lock mount down"))?;
        }
    }
    Ok(())
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
    Some(MountPoint { path, options, filesystem: right.split(' ').next()?.to_owned() })
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
            path: "/mnt 2".into(),
            options: MsFlags::MS_NOATIME | MsFlags::MS_NOSUID,
            filesystem: "ext3".to_owned(),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("nonsense"), None);
        assert_eq!(unescape(r"a\134b\"), br"a\b\");
    }
}
