//! The runner's end of the status stream.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
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

impl StatusStream {
    /// Whether nobody is left to report to.
    pub(crate) fn is_abandoned(&self) -> bool {
        let ended = || -> io::Result<bool> {
            let mut stream = UnixStream::from(OwnedFd::from(self.0.try_clone()?));
            stream.set_nonblocking(true)?;
            // Nothing is ever sent this way: there is an end, or nothing.
            let ended = matches!(stream.read(&mut [0]), Ok(0));
            stream.set_nonblocking(false)?;
            Ok(ended)
        };
        ended().unwrap_or(true)
    }
}

impl AsRawFd for StatusStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
