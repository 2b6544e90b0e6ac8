//! A guest's bound on memory, which may change while it runs: whoever updates the container's limits writes it to a page that
//! the runner only reads.
#![allow(unsafe_code)]

use std::{
    ffi::c_void,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

/// Bytes of the page that are used: one number in the machine's own order.
pub const BYTES: usize = size_of::<AtomicU64>();
/// The number that stands for none.
const NONE: u64 = u64::MAX;

/// Bound on linear memory in bytes. A copy is the same bound.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBound(Bound);

#[derive(Clone, Copy, Debug)]
enum Bound {
    Fixed(Option<u64>),
    /// Mapped until the process ends.
    Shared(&'static AtomicU64),
}

impl MemoryBound {
    /// One that never changes; `None` for none.
    #[must_use]
    pub fn fixed(bytes: Option<u64>) -> Self {
        Self(Bound::Fixed(bytes))
    }

    /// One that others change by [`write`], in a file in memory that can't be made shorter. It stays mapped when `file` is closed.
    ///
    /// # Errors
    /// The file is not such a one.
    pub fn shared(file: impl AsFd) -> io::Result<Self> {
        let page = map(file.as_fd(), ProtFlags::PROT_READ)?;
        // SAFETY: the page is mapped and never unmapped, is aligned as pages are, and holds a number of which every value is
        // valid. Others change it, by atomic stores; it is read by atomic, relaxed loads of a size that is good for memory
        // that can't be written.
        Ok(Self(Bound::Shared(unsafe { AtomicU64::from_ptr(page.cast().as_ptr()) })))
    }

    /// What it is now; `None` for none.
    #[must_use]
    pub fn current(&self) -> Option<u64> {
        match self.0 {
            Bound::Fixed(bytes) => bytes,
            Bound::Shared(number) => Some(number.load(Ordering::Relaxed)).filter(|&bytes| bytes != NONE),
        }
    }
}

/// Changes a bound for all who share it.
///
/// # Errors
/// As for [`MemoryBound::shared`].
pub fn write(file: impl AsFd, bytes: Option<u64>) -> io::Result<()> {
    let page = map(file.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
    // SAFETY: as in `shared`; nothing refers to it when it is unmapped below.
    unsafe { AtomicU64::from_ptr(page.cast().as_ptr()) }.store(bytes.unwrap_or(NONE), Ordering::Relaxed);
    // SAFETY: this is the mapping that was just made, whole.
    unsafe { munmap(page, BYTES) }?;
    Ok(())
}

fn map(file: BorrowedFd<'_>, protection: ProtFlags) -> io::Result<NonNull<c_void>> {
    // What others could shorten would end whoever reads it, by SIGBUS.
    let seals = SealFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GET_SEALS)?);
    let long = nix::sys::stat::fstat(file)?.st_size >= BYTES as i64;
    if !(seals.contains(SealFlag::F_SEAL_SHRINK) && long) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a sealed file with a bound on memory"));
    }
    let length = NonZeroUsize::new(BYTES).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: a new mapping, where the kernel finds a place for it.
    Ok(unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::File, os::fd::AsRawFd};

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn what_is_written_is_seen_by_who_may_only_read() {
        let file = File::from(memfd_create(c"bound", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        assert!(MemoryBound::shared(&file).is_err(), "it could be made shorter");
        file.set_len(BYTES as u64).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).unwrap();
        let readable = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let bound = MemoryBound::shared(&readable).unwrap();
        assert_eq!(bound.current(), Some(0));
        for bytes in [Some(64 << 20), None, Some(1)] {
            write(&file, bytes).unwrap();
            assert_eq!(bound.current(), bytes);
        }
        write(&readable, Some(2)).unwrap_err();
        drop((readable, file));
        assert_eq!(bound.current(), Some(1), "it outlives the descriptors");
        assert_eq!(MemoryBound::fixed(Some(3)).current(), Some(3));
    }
}
