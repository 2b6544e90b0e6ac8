//! The first process of a PID namespace that a pod's containers share. It reaps what is left to it, and keeps the namespace
//! until the daemon lets go of it, or is gone.
//!
//! The containers see it, so it is worth nothing to them: an empty root, no capability, not dumpable (which keeps
//! `/proc/1` from everybody without `CAP_SYS_PTRACE`), and no system call but read, write and exit.
#![allow(unsafe_code)]

use std::io;

use anyhow::{Context, Result};
use lighter_runtime_api::resident::FilePages;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{SigHandler, Signal, signal},
};
use rustix::{
    process::{DumpableBehavior, pivot_root, set_dumpable_behavior},
    stdio::{stdin, stdout},
    thread::{CapabilitySet, CapabilitySets, SecureComputingMode, set_capabilities, set_secure_computing_mode},
};

/// The action under which the daemon runs it.
pub(crate) const ACTION: &str = "hold-processes";
/// What `ps` in a container calls it.
pub(crate) const NAME: &str = "pod";

/// Runs until standard input ends. A byte on standard output says that the process is what it is to be.
pub(crate) fn run() -> Result<()> {
    // SAFETY: no handler is installed, so that nothing of ours runs in a signal's context. Ignored means reaped, by the
    // kernel: see wait(2), `SIGCHLD` set to `SIG_IGN`.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.context("ignore the end of children")?;
    // One for each pod of this kind waits as long as the pod lives. What it needs comes back by itself.
    let pages = std::fs::read_to_string("/proc/self/maps").map(|maps| FilePages::of(&maps)).unwrap_or_default();
    leave_host().context("leave the host's file systems")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).context("drop capabilities")?;
    let _ = pages.give_back();
    // Source: seccomp(2), SECCOMP_SET_MODE_STRICT.
    set_secure_computing_mode(SecureComputingMode::Strict).context("restrict system calls")?;
    // From here on, not even memory can be allocated.
    let mut byte = [0];
    if rustix::io::write(stdout(), &byte).is_ok() {
        while matches!(rustix::io::read(stdin(), &mut byte), Ok(read) if read > 0) {}
    }
    // Leaving `main` takes system calls, and any of them ends the process.
    Ok(())
}

/// Takes an empty root in place of the host's.
fn leave_host() -> io::Result<()> {
    // Any folder does: it is hidden, not used.
    const PLACE: &str = "/proc";
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("empty"), PLACE, Some("tmpfs"), flags, Some("mode=0555,size=4k"))?;
    std::env::set_current_dir(PLACE)?;
    // Both at one place: the old root is on top of the new one, and is unmounted. Source: pivot_root(2).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}
