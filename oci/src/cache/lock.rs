//! Locks: one for each key, and one for what nobody waits for.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::Error;

/// The right to work in the background, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: Flock<File>,
}

impl Turn {
    /// Waits for it.
    pub(super) fn wait_for(path: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::Cache { operation: "lock", path: path.clone(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

/// An exclusive lock that leaves no file behind.
pub(super) struct KeyLock {
    _lock: Flock<File>,
    path: PathBuf,
}

impl KeyLock {
    pub(super) fn acquire(path: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::Cache { operation: "lock cache entry", path: path.clone(), source };
        loop {
            let file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
            let lock =
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(io::Error::from(errno)))?;
            // The holder before us removed the file: then others may lock a new one, and ours is worth nothing.
            let ours = lock.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == ours) {
                return Ok(Self { _lock: lock, path });
            }
        }
    }

    /// Whether somebody has it. Takes nothing.
    pub(super) fn is_held(path: &Path) -> Result<bool, Error> {
        let failed = |source| Error::Cache { operation: "look at lock of cache entry", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(failed(source)),
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
