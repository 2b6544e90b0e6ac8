//! A program's file that whatever it runs can't write to.
//!
//! The runner of a native container is in it until it execs, and `/proc/PID/exe` then leads from there to its file on the
//! host, past all that the container has mounted; a script for `/proc/self/exe` even keeps it there. Root may write to what
//! root owns (CVE-2019-5736). So it is run from where nobody can.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::libc;
use rustix::{
    fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open},
    io::{Errno, fcntl_dupfd_cloexec},
    mount::{OpenTreeFlags, open_tree},
};

/// Above the numbers that a runner's descriptors have, which are given out before it is exec'd.
const FIRST: i32 = 64;

/// An open program.
#[derive(Debug)]
pub(crate) struct Executable(OwnedFd);

impl Executable {
    /// Opens it by a read-only mount of its own; where the kernel has no such mounts (before 5.12) or refuses them, copies it.
    pub(crate) fn shield(path: &Path) -> io::Result<Self> {
        let file = match read_only(path) {
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => sealed_copy(path)?,
            opened => opened?,
        };
        Ok(Self(fcntl_dupfd_cloexec(file, FIRST)?))
    }

    /// By which this process, or a child of it that has not exec'd yet, executes it.
    pub(crate) fn path(&self) -> PathBuf {
        by_descriptor(self.0.as_fd())
    }
}

fn by_descriptor(descriptor: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

fn read_only(path: &Path) -> rustix::io::Result<OwnedFd> {
    let mount = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    make_read_only(mount.as_fd())?;
    // Opened anew, for the mount leaves its namespace with the descriptor that made it: in none, nobody can change it, not
    // even who may mount.
    open(by_descriptor(mount.as_fd()), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Source: mount_setattr(2).
fn make_read_only(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let change = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is an empty C string, and the kernel reads `change`, which is as long as it is told.
    let changed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    match changed {
        -1 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
        _ => Ok(()),
    }
}

fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let copy = memfd_create("runner", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    io::copy(&mut File::open(path)?, &mut &File::from(copy.try_clone()?))?;
    fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    /// A program that root, and its owner, may write to.
    fn program(folder: &Path) -> PathBuf {
        let path = folder.join("program");
        fs::copy("/bin/echo", &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn what_is_shielded_runs_and_is_not_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = program(folder.path());
        File::options().write(true).open(&path).unwrap();
        for file in [Executable::shield(&path).unwrap(), Executable(sealed_copy(&path).unwrap())] {
            let output = Command::new(file.path()).arg("hello").output().unwrap();
            assert_eq!(output.stdout, b"hello\n");
            let written = File::options().write(true).open(file.path()).and_then(|mut file| file.write_all(b"x"));
            assert!(written.is_err());
        }
        assert_eq!(fs::read(&path).unwrap(), fs::read("/bin/echo").unwrap());
    }
}
