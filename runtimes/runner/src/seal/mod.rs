//! Takes from a process whatever hostile code could use, before that code runs in it.
//!
//! The guest shares an address space with its engine. Should it break out of the engine, it finds a process without
//! capabilities, without descriptors beyond the guest's own, without a view of processes or kernel, that can neither
//! exec nor map new executable memory. Must not know: engines, plans.

mod mounts;
mod privileges;
mod scratch;
mod syscalls;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, RawFd},
};

use lighter_runtime_api::{Network, resident::FilePages};
use oci_spec::runtime::LinuxSeccomp;

use crate::Error;

pub use syscalls::Allowed;

/// What a container's init does to itself between the start signal and the guest.
#[derive(Debug)]
pub struct Seal {
    /// The host's `/proc`, opened before the fork: the sandbox's own goes in the first step.
    proc: File,
    keep: BTreeSet<RawFd>,
    /// Those of `keep` that show the memory of the process that opened them.
    page_maps: Vec<RawFd>,
    profile: Option<LinuxSeccomp>,
    apparmor: Option<String>,
    allowed: Allowed,
}

impl Seal {
    /// Prepares a seal on the host. `keep` are the descriptors that stay open; `profile` and `apparmor` are the
    /// container's own profiles, which come on top of the seal's filter; `network` says which sockets it leaves.
    ///
    /// # Errors
    /// `/proc` can't be opened, or the seccomp profile asks for a listener, which nobody would answer.
    pub fn new(
        keep: BTreeSet<RawFd>,
        profile: Option<LinuxSeccomp>,
        apparmor: Option<String>,
        network: &Network,
    ) -> Result<Self, Error> {
        let proc = File::open("/proc").map_err(failed("open /proc"))?;
        if profile.as_ref().is_some_and(libcontainer::seccomp::is_notify) {
            return Err(Error::Seal {
                operation: "read seccomp profile",
                why: "SCMP_ACT_NOTIFY is not supported for WebAssembly guests; use a profile without it".to_owned(),
            });
        }
        Ok(Self { proc, keep, page_maps: Vec::new(), profile, apparmor, allowed: Allowed::guest(network) })
    }

    /// Descriptors of `/proc/self/pagemap` that an engine opened before the fork: they are to show the memory of who is
    /// sealed. Wasmtime does so itself where a process forks by way of the C library, which libcontainer doesn't.
    #[must_use]
    pub fn with_page_maps(mut self, descriptors: Vec<RawFd>) -> Self {
        self.page_maps = descriptors;
        self
    }

    /// The pages of this program's file, which can't be found out any more once the seal is applied.
    ///
    /// # Errors
    /// `/proc` does not say.
    pub fn file_pages(&self) -> io::Result<FilePages> {
        let mut maps = String::new();
        open_in_proc(&self.proc, "self/maps", nix::fcntl::OFlag::O_RDONLY)?.read_to_string(&mut maps)?;
        Ok(FilePages::of(&maps))
    }

    /// Applies it. There is no way back.
    ///
    /// # Errors
    /// A step failed; the guest must not run.
    pub fn apply(self) -> Result<(), Error> {
        for &page_map in &self.page_maps {
            replace_page_map(&self.proc, page_map).map_err(failed("open page map"))?;
        }
        mounts::lock_down(&self.proc)?;
        if let Some(profile) = &self.apparmor {
            privileges::enter_apparmor(&self.proc, profile)?;
        }
        drop(self.proc);
        close_all_but(&self.keep)?;
        privileges::drop_all()?;
        if let Some(profile) = self.profile {
            self.allowed.load_profile(profile)?;
        }
        self.allowed.load()
    }
}

/// Seals a process that only computes from its open descriptors: a compiler. It keeps 0, 1 and 2.
///
/// # Errors
/// A step failed; no hostile input must be read.
pub fn compute_only() -> Result<(), Error> {
    close_all_but(&BTreeSet::from([libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO]))?;
    privileges::drop_all()?;
    Allowed::compute().load()
}

/// As [`compute_only`], for a compiler that keeps files while it works: they are in an empty folder in memory, which is
/// its root and goes with it. `bytes` is what they may come to.
///
/// # Errors
/// As for [`compute_only`].
pub fn compute_with_files(bytes: u64) -> Result<(), Error> {
    close_all_but(&BTreeSet::from([libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO]))?;
    scratch::enter(bytes)?;
    privileges::drop_all()?;
    Allowed::compute_with_files().load()
}

/// Puts this process's page map in the place of its parent's.
#[allow(unsafe_code)]
fn replace_page_map(proc: &File, page_map: RawFd) -> io::Result<()> {
    let own = open_in_proc(proc, "self/pagemap", nix::fcntl::OFlag::O_RDONLY)?;
    // SAFETY: both are open, and whoever owns the second one goes on using its number for what it was opened for.
    match unsafe { libc::dup3(own.as_raw_fd(), page_map, libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Closes every descriptor that is not in `keep`.
#[allow(unsafe_code)]
fn close_all_but(keep: &BTreeSet<RawFd>) -> Result<(), Error> {
    let mut first: libc::c_uint = 0;
    let gaps = keep.iter().map(|&fd| fd.unsigned_abs()).chain([libc::c_uint::MAX]);
    for fd in gaps {
        if fd > first {
            let last = if fd == libc::c_uint::MAX { fd } else { fd - 1 };
            // SAFETY: the descriptors belong to this process. Rust values that own some of them live on in frames that
            // are never returned to: the caller ends in `_exit`.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
                return Err(failed("close descriptors")(io::Error::last_os_error()));
            }
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// An [`Error::Seal`] of this operation.
fn failed<E: ToString>(operation: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Seal { operation, why: error.to_string() }
}

/// Opens a file below the host's `/proc` for this process.
fn open_in_proc(proc: &File, path: &str, flags: nix::fcntl::OFlag) -> io::Result<File> {
    debug_assert!(proc.as_raw_fd() >= 0);
    let fd = nix::fcntl::openat(proc, path, flags | nix::fcntl::OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    Ok(File::from(fd))
}
