//! The runner's end of the status stream.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use lighter_runtime_api::protocol::Status;

/// Where a runner says how far it came. Closed when the guest starts.
///
/// Written to as a file: a sealed runner whose guest has no network can't `send`, which is how a socket type writes.
#[derive(Debug)]
pub(crate) struct StatusStream(File);

impl StatusStream {
    pub(crate) fn new(stream: OwnedFd) -> Self {
        Self(stream.into())
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends one line. A daemon that is gone is nobody to report to, and cleans up by other means.
    pub(crate) fn send(&self, status: &Status) {
        let sent = serde_json::to_vec(status).map_err(io::Error::other).and_then(|mut line| {
            line.push(b'\n');
            (&self.0).write_all(&line)
        });
        drop(sent);
    }
}

impl AsRawFd for StatusStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
