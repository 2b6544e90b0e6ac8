//! Locks: one for each key, one for what nobody waits for, and some for what may be done so often at once.

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

/// An exclusive lock that leaves no file behind, but where its holder was killed: then the file is there, and nobody's.
#[derive(Debug)]
pub(super) struct KeyLock {
    _lock: Flock<File>,
    path: PathBuf,
}

impl KeyLock {
    /// Waits for it.
    pub(super) fn acquire(path: &Path) -> Result<Self, Error> {
        loop {
            if let Some(lock) = Self::attempt(path, FlockArg::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    /// Takes it. `None` where somebody has it, or has given it back this very moment.
    pub(super) fn try_acquire(path: &Path) -> Result<Option<Self>, Error> {
        Self::attempt(path, FlockArg::LockExclusiveNonblock)
    }

    fn attempt(path: &Path, how: FlockArg) -> Result<Option<Self>, Error> {
        let failed = |source| Error::Cache { operation: "lock cache entry", path: path.to_owned(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        let lock = match Flock::lock(file, how) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        // The holder before us removed the file: then others may lock a new one, and ours is worth nothing.
        let ours = lock.metadata().map_err(failed)?.ino();
        let named = fs::metadata(path).is_ok_and(|named| named.ino() == ours);
        Ok(named.then(|| Self { _lock: lock, path: path.to_owned() }))
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
