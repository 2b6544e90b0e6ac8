//! Files by which the kernel tells that something has happened to a cgroup.
#![allow(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of such a file that are read: it has a few short lines.
const LONG: usize = 4096;

/// An open file that tells when there is news. One descriptor, and no work while nothing happens.
#[derive(Debug)]
pub(crate) struct Watched {
    file: AsyncFd<File>,
    interest: Interest,
}

impl Watched {
    /// A file of cgroup v2 that tells when its text changes. Source: the kernel's `cgroup-v2.rst`, "Conventions", and poll(2),
    /// `POLLPRI`.
    pub(crate) fn text(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?, Interest::PRIORITY)
    }

    /// What `control` reports by an eventfd in cgroup v1. Source: the kernel's `cgroup-v1/memory.rst`, "OOM Control".
    pub(crate) fn event(folder: &Path, control: &str) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = File::open(folder.join(control))?;
        fs::write(folder.join("cgroup.event_control"), format!("{} {}", event.as_raw_fd(), control.as_raw_fd()))?;
        Self::new(File::from(event), Interest::READABLE)
    }

    fn new(file: File, interest: Interest) -> io::Result<Self> {
        // SAFETY: a `File` gives the same open descriptor out for as long as it lives, and `AsyncFd` owns it.
        let file = unsafe { AsyncFd::register_with_interest(file, interest) }?;
        Ok(Self { file, interest })
    }

    /// The text as it is now.
    pub(crate) fn read(&self) -> io::Result<String> {
        let mut bytes = vec![0; LONG];
        let length = self.file.get_ref().read_at(&mut bytes, 0)?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Resolves when something has happened since it last did; now and then when nothing has.
    pub(crate) async fn changed(&self) {
        match self.file.ready(self.interest).await {
            // The next event sets it again: nothing needs to be read for that.
            Ok(mut ready) => ready.clear_ready(),
            // The daemon is about to end.
            Err(_) => std::future::pending().await,
        }
    }
}
