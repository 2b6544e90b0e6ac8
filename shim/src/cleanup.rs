//! The `delete` action: removes what a container left, when its daemon may be gone.

use std::{
    fs,
    io::{self, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::SystemTime,
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
        && UnixStream::connect(path).is_err()
    {
        let _ = fs::remove_file(path);
    }
}
