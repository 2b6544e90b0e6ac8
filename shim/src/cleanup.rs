//! The `delete` action: removes what a container left, when its daemon may be gone.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use containerd_shim::{Flags, util::convert_to_timestamp};
use containerd_shim_protos::{api::DeleteResponse, protobuf::Message};

use crate::{
    runner::Leftovers,
    start::{ADDRESS, socket_path},
};

/// What is reported of a container whose end nobody saw: killed.
const KILLED: u32 = 128 + nix::libc::SIGKILL.unsigned_abs();

/// How long a dying daemon may take from its connections' end to its listener's.
const DYING: Duration = Duration::from_millis(50);

/// Runs in the bundle's folder, or gets it by flag.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let bundle = match flags.bundle.as_str() {
        "" => std::env::current_dir().context("find bundle")?,
        path => PathBuf::from(path),
    };
    remove_stale_socket(&bundle);
    Leftovers::of_bundle(&bundle, &flags.id).remove().context("clean up container")?;
    let response = DeleteResponse {
        exit_status: KILLED,
        exited_at: Some(convert_to_timestamp(Some(SystemTime::now().into()))).into(),
        ..DeleteResponse::default()
    };
    let bytes = response.write_to_bytes().context("encode answer")?;
    io::stdout().write_all(&bytes).context("answer containerd")
}

/// A daemon that was killed leaves its socket. One that lives has other containers to serve.
fn remove_stale_socket(bundle: &Path) {
    if let Ok(address) = fs::read_to_string(bundle.join(ADDRESS))
        && let path = socket_path(address.trim())
        && !is_served(path)
    {
        let _ = fs::remove_file(path);
    }
}

/// Whether a daemon lives behind a socket. It says nothing to who asks nothing; from one that is about to be gone, the
/// connection is reset.
fn is_served(path: &Path) -> bool {
    let silent = |mut stream: UnixStream| {
        stream.set_read_timeout(Some(DYING))?;
        stream.read(&mut [0])
    };
    UnixStream::connect(path).and_then(silent).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    #[test]
    fn a_dying_daemon_serves_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(!is_served(&path), "no socket");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_served(&path), "a daemon that listens");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(DYING / 5);
                drop(listener);
            });
            assert!(!is_served(&path), "a daemon that goes");
        });
        assert!(!is_served(&path), "a stale socket");
    }
}
