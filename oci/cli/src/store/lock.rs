//! Advisory locks on files, gone with the process.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits while somebody holds `path` exclusively.
    pub(crate) fn shared(path: &Path) -> Result<Self> {
        Self::acquire(path, FlockArg::LockShared)?.with_context(|| format!("lock {}", path.display()))
    }

    /// Waits while anybody else holds `path`.
    pub(crate) fn exclusive(path: &Path) -> Result<Self> {
        Self::acquire(path, FlockArg::LockExclusive)?.with_context(|| format!("lock {}", path.display()))
    }

    /// `None` if anybody else holds `path`.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        Self::acquire(path, FlockArg::LockExclusiveNonblock)
    }

    fn acquire(path: &Path, how: FlockArg) -> Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("open lock file {}", path.display()))?;
        match lock(file, how) {
            Ok(file) => Ok(Some(Self { _file: file })),
            Err(Errno::EWOULDBLOCK) => Ok(None),
            Err(errno) => Err(io::Error::from(errno)).with_context(|| format!("lock {}", path.display())),
        }
    }
}

/// Locks an open file; a signal is no reason to give up.
pub(crate) fn lock(mut file: File, how: FlockArg) -> Result<Flock<File>, Errno> {
    loop {
        match Flock::lock(file, how) {
            Ok(locked) => return Ok(locked),
            Err((unlocked, Errno::EINTR)) => file = unlocked,
            Err((_, errno)) => return Err(errno),
        }
    }
}
