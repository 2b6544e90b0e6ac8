//! Who the guest is, on the host.
//!
//! The seal leaves it no capability whoever it is; the user decides which files it may open, among those that it is shown.

use std::{fs, path::Path, str::FromStr};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use super::layers::RootFolder;

/// Nobody's number on every Linux: owns no file, is in no group.
const NOBODY: User = User { uid: 65534, gid: 65534 };
/// Bytes of an image's `/etc/passwd` or `/etc/group` that are read.
const MAX_USERS: u64 = 1 << 20;
/// `CAP_SYS_ADMIN`'s number. Source: capabilities(7), `linux/capability.h`.
const CAP_SYS_ADMIN: u32 = 21;

/// A user and its one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `UID[:GID]`; without a group, the group of the same number.
impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self { uid, gid }),
            _ => Err(format!("{text:?} is not UID or UID:GID, such as 1000:1000")),
        }
    }
}

/// Whether this process may make namespaces and cgroups as it is, and be any user. Root in a container often may not.
pub(crate) fn is_privileged() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("read own capabilities")?;
    let users = fs::read_to_string("/proc/self/uid_map").context("read own users")?;
    Ok(geteuid().is_root() && has_capability(&status, CAP_SYS_ADMIN) && has_all_users(&users))
}

/// Whether the text of `/proc/PID/uid_map` is the initial user namespace's. Source: user_namespaces(7).
fn has_all_users(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether the text of `/proc/PID/status` shows an effective capability.
fn has_capability(status: &str, number: u32) -> bool {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits >> number & 1 == 1)
}

/// Who a guest is that root starts: whom the command line names, else whom the image names, else whom the folders belong to
/// that it is given (`owner`), for nobody else may be sure to write there, and without any, nobody.
pub(crate) fn guest(asked: Option<User>, image: &str, owner: Option<User>, rootfs: &RootFolder) -> Result<User> {
    match asked {
        Some(user) => Ok(user),
        None if !image.is_empty() => of_image(image, rootfs),
        None => Ok(owner.unwrap_or(NOBODY)),
    }
}

/// What an image's `user[:group]` means: names are looked up in its own files.
fn of_image(text: &str, rootfs: &RootFolder) -> Result<User> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let table = |path: &str| -> Result<String> {
        let bytes = rootfs.read(Path::new(path), MAX_USERS)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let passwd = table("/etc/passwd")?;
    let line = line_of(&passwd, user);
    let number = |fields: &Vec<&str>, at: usize| fields.get(at).and_then(|field| field.parse().ok());
    let uid = user.parse().ok().or_else(|| line.as_ref().and_then(|fields| number(fields, 2)));
    let Some(uid) = uid else {
        bail!("the image's user {user:?} is not in its /etc/passwd; choose one with --user UID:GID");
    };
    let gid = match group {
        Some(group) => match group.parse().ok().or_else(|| number(&line_of(&table("/etc/group").ok()?, group)?, 2)) {
            Some(gid) => gid,
            None => bail!("the image's group {group:?} is not in its /etc/group; choose one with --user UID:GID"),
        },
        None => line.as_ref().and_then(|fields| number(fields, 3)).unwrap_or(0),
    };
    Ok(User { uid, gid })
}

/// The fields of the line that begins with `name`, or whose number it is. Source: passwd(5), group(5).
fn line_of<'a>(table: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut named = lines.filter(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
    named.next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers() {
        assert_eq!("1000".parse(), Ok(User { uid: 1000, gid: 1000 }));
        assert_eq!("0:5".parse(), Ok(User { uid: 0, gid: 5 }));
        for text in ["", "me", "1:", "-1", "1:2:3", "4294967296"] {
            assert!(text.parse::<User>().is_err(), "{text}");
        }
    }

    #[test]
    fn reads_capabilities() {
        let status = |bits: &str| format!("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{bits}\n");
        assert!(has_capability(&status("000001ffffffffff"), CAP_SYS_ADMIN));
        assert!(!has_capability(&status("00000000a80425fb"), CAP_SYS_ADMIN), "Docker's default");
        assert!(!has_capability("", CAP_SYS_ADMIN));
        assert!(has_all_users("         0          0 4294967295\n"));
        assert!(!has_all_users("         0       1000          1\n"));
        assert!(!has_all_users("0 100000 65536\n"));
    }

    #[test]
    fn the_guest_is_nobody_unless_somebody_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join("etc/passwd"), "root:x:0:0\nweb:x:33:34:Web:/:/bin/false\nbroken\n").unwrap();
        fs::write(folder.path().join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        let rootfs = RootFolder::new(folder.path()).unwrap();
        let user = |uid, gid| User { uid, gid };
        let table = [
            (None, "", None, user(65534, 65534)),
            (None, "", Some(user(5, 6)), user(5, 6)),
            (Some(user(7, 8)), "web", Some(user(5, 6)), user(7, 8)),
            (None, "web", None, user(33, 34)),
            (None, "33", None, user(33, 34)),
            (None, "1000", None, user(1000, 0)),
            (None, "1000:1001", Some(user(5, 6)), user(1000, 1001)),
            (None, "web:staff", None, user(33, 50)),
            (None, "root", None, user(0, 0)),
        ];
        for (asked, image, owner, expected) in table {
            assert_eq!(guest(asked, image, owner, &rootfs).unwrap(), expected, "{asked:?} {image:?}");
        }
        for image in ["nope", "web:nope", "broken"] {
            assert!(guest(None, image, None, &rootfs).is_err(), "{image}");
        }
    }
}
