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
    pod,
    runner::Leftovers,
    start::{ADDRESS, socket_path},
};

/// What is reported of a container whose end nobody saw: killed.
const KILLED: u32 = 128 + nix::libc::SIGKILL.unsigned_abs();

/// A request of the task API that names no method, to which a server answers with an error.
/// Source: ttrpc's `PROTOCOL.md`: length, stream, type, flags.
const PROBE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0];
/// A daemon that takes longer is busy, not gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs in the bundle's folder, or gets it by flag.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let bundle = match flags.bundle.as_str() {
        "" => std::env::current_dir().context("find bundle")?,
        path => PathBuf::from(path),
    };
    remove_stale_socket(&bundle);
    pod::remove_leftovers(&bundle).context("clean up pod")?;
    let left = Leftovers::of_bundle(&bundle, &flags.id);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start event loop")?;
    runtime.block_on(left.remove()).context("clean up container")?;
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

/// Whether a daemon lives behind a socket. One that is about to be gone may still have its listener, but nobody takes the
/// connection, and it is reset.
fn is_served(path: &Path) -> bool {
    let ask = |mut stream: UnixStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&PROBE)?;
        stream.read(&mut [0])
    };
    match UnixStream::connect(path).and_then(ask) {
        Ok(answered) => answered > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::net::UnixListener, thread, time::Instant};

    use containerd_shim_protos::ttrpc::r#async::Server;

    use super::*;

    #[test]
    fn a_dying_daemon_serves_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(!is_served(&path), "no socket");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(b"answer").unwrap());
            assert!(is_served(&path), "a daemon that answers");
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(PATIENCE / 20);
                drop(listener);
            });
            assert!(!is_served(&path), "a daemon that goes");
        });
        assert!(!is_served(&path), "a stale socket");
    }

    #[tokio::test]
    async fn a_server_of_the_task_api_answers_the_probe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut server = Server::new().bind(&format!("unix://{}", path.display())).unwrap();
        server.start().await.unwrap();
        let begun = Instant::now();
        assert!(tokio::task::spawn_blocking(move || is_served(&path)).await.unwrap());
        assert!(begun.elapsed() < PATIENCE, "it answered, and was not waited for");
        server.shutdown().await.unwrap();
    }
}
