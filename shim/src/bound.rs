//! The bound on a container's linear memory, which its runners ask each time that memory grows.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use lighter_runtime_api::bound::{BYTES, write};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create, open};

/// A page in memory. It goes with the last who has it.
#[derive(Debug)]
pub(crate) struct Bound(OwnedFd);

impl Bound {
    /// In bytes; `None` for none.
    pub(crate) fn new(bytes: Option<u64>) -> io::Result<Self> {
        let page = memfd_create("bound", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&page, BYTES as u64)?;
        fcntl_add_seals(&page, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW)?;
        let bound = Self(page);
        bound.set(bytes)?;
        Ok(bound)
    }

    /// Changes it, for those too who run already.
    pub(crate) fn set(&self, bytes: Option<u64>) -> io::Result<()> {
        write(&self.0, bytes)
    }

    /// For a runner, which can't change it.
    pub(crate) fn readable(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use lighter_runtime_api::MemoryBound;

    use super::*;

    #[test]
    fn a_runner_sees_what_is_set_and_sets_nothing() {
        let bound = Bound::new(Some(7)).unwrap();
        let readable = bound.readable().unwrap();
        let seen = MemoryBound::shared(&readable).unwrap();
        assert_eq!(seen.current(), Some(7));
        bound.set(None).unwrap();
        assert_eq!(seen.current(), None);
        assert!(write(&readable, Some(1)).is_err());
        assert!(ftruncate(&bound.0, 0).is_err());
    }
}
