//! `--dir HOST:GUEST[:ro]`: what of the host's files the guest gets.

use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use lighter_oci::KERNEL_FILESYSTEMS;
use serde_json::{Value, json};

use super::user::User;

/// A folder or file of the host's, and where the guest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    host: PathBuf,
    guest: PathBuf,
    read_only: bool,
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, guest, read_only) = match text.split(':').collect::<Vec<_>>()[..] {
            [host, guest] | [host, guest, "rw"] => (host, guest, false),
            [host, guest, "ro"] => (host, guest, true),
            _ => return Err(format!("{text:?} is not HOST:GUEST or HOST:GUEST:ro, such as ./data:/data:ro")),
        };
        let guest = PathBuf::from(guest);
        let plain = guest.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if host.is_empty() || !guest.is_absolute() || !plain {
            return Err(format!("{text:?}: the guest's path must be absolute and without `..`, such as /data"));
        }
        if guest == Path::new("/") || ["/dev", "/proc"].iter().any(|own| guest.starts_with(own)) {
            return Err(format!("{text:?}: {} is the sandbox's own; choose a folder such as /data", guest.display()));
        }
        Ok(Self { host: host.into(), guest, read_only })
    }
}

impl Volume {
    /// Whom a guest must be that is given these: the owner of the first that it may write to, else of the first.
    pub(crate) fn owner_of(volumes: &[Self]) -> Result<Option<User>> {
        let Some(volume) = volumes.iter().find(|volume| !volume.read_only).or(volumes.first()) else { return Ok(None) };
        let metadata = fs::metadata(&volume.host).with_context(|| format!("look at {}", volume.host.display()))?;
        Ok(Some(User { uid: metadata.uid(), gid: metadata.gid() }))
    }

    /// The mount of a runtime spec, with everything that is mounted below the folder. `as_root` says that kernel
    /// filesystems below it can be taken away, which a user namespace can't.
    pub(crate) fn mount(&self, as_root: bool) -> Result<Value> {
        let host = fs::canonicalize(&self.host)
            .with_context(|| format!("--dir {}: no such file or folder can be given", self.host.display()))?;
        let Some(source) = host.to_str() else { bail!("--dir {}: its name is not UTF-8", host.display()) };
        if !as_root {
            let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the list of mounts")?;
            if let Some(kernel) = kernel_filesystem_below(&mounts, source) {
                bail!(
                    "--dir {source}: {kernel} below it shows processes or the kernel, and only root can hide it; give a \
                     folder without it"
                );
            }
        }
        let options: &[&str] = if self.read_only { &["rbind", "ro", "rro"] } else { &["rbind"] };
        Ok(json!({"type": "bind", "source": source, "destination": self.guest, "options": options}))
    }
}

/// The first kernel filesystem that is mounted below `folder`. Source: proc_pid_mountinfo(5).
fn kernel_filesystem_below<'a>(mounts: &'a str, folder: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let path = left.split(' ').nth(4)?;
        let filesystem = right.split(' ').next()?;
        (KERNEL_FILESYSTEMS.contains(&filesystem) && unescaped(path).starts_with(folder)).then_some(path)
    })
}

/// A path of the list of mounts, in which white space and backslashes are written as three octal digits.
fn unescaped(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let code = behind.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &behind[3..];
            }
            None => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let volume = |host: &str, guest: &str, read_only| Volume { host: host.into(), guest: guest.into(), read_only };
        assert_eq!(".:/data".parse(), Ok(volume(".", "/data", false)));
        assert_eq!("/a/b:/c:ro".parse(), Ok(volume("/a/b", "/c", true)));
        for (text, expected) in [
            ("/data", "HOST:GUEST"),
            ("a:b", "absolute"),
            ("a:/../b", "without `..`"),
            (":/b", "absolute"),
            ("a:/b:rx", "HOST:GUEST"),
            (".:/", "sandbox's own"),
            ("a:/proc/x", "sandbox's own"),
            ("a:/dev", "sandbox's own"),
        ] {
            let error = text.parse::<Volume>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn finds_kernel_filesystems_below_a_folder() {
        let mounts = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /home/me/x rw - tmpfs tmpfs rw
25 22 0:23 / /srv/my\\040root/sys rw - sysfs sysfs rw
";
        assert_eq!(kernel_filesystem_below(mounts, "/"), Some("/proc"));
        assert_eq!(kernel_filesystem_below(mounts, "/home"), None);
        assert_eq!(kernel_filesystem_below(mounts, "/pro"), None);
        assert_eq!(kernel_filesystem_below(mounts, "/srv/my root"), Some("/srv/my\\040root/sys"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = "/no/such:/data".parse::<Volume>().unwrap().mount(true).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such"), "{error:#}");
    }
}
