//! What a guest gets of WASI: what its plan grants, and nothing by default.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lighter_runtime_api::{Error, Guest, Network};
use wasmtime::{StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, sockets::SocketAddrUse};

use crate::backend::failed;

/// Arguments, environment, streams, files and network of the plan.
///
/// The sandbox's whole `/` is the guest's: what must not be seen is not in it, and what must not be written is mounted
/// read-only. Called in the sealed init.
pub(crate) fn context(guest: &Guest) -> Result<WasiCtxBuilder, Error> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&guest.args).envs(&guest.env).inherit_stdio();
    // One guest a process: a thread for each file operation would only add switches.
    wasi.allow_blocking_current_thread(true);
    preopen(&mut wasi, Path::new("/"), "/")?;
    wasi.initial_cwd(guest.cwd.to_string_lossy());
    if guest.cwd != Path::new("/") {
        // WASI 0.1 has no working directory, and wasi-libc does not ask WASI 0.2 for it. It cuts the leading slash off a
        // path and then takes the preopen with the longest matching name. So the root's folders get names of their own,
        // and "." is what is left: relative paths.
        for folder in folders_of_root()? {
            preopen(&mut wasi, &folder, &folder.to_string_lossy())?;
        }
        preopen(&mut wasi, &guest.cwd, ".")?;
        // Go's runtime takes it from here.
        if !guest.env.iter().any(|(name, _)| name == "PWD") {
            wasi.env("PWD", guest.cwd.to_string_lossy());
        }
    }
    match &guest.grants.network {
        Network::All => {
            wasi.inherit_network().allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        }
        Network::Listen(_) => {
            let network = guest.grants.network.clone();
            wasi.allow_tcp(true).socket_addr_check(move |address, used_for| {
                let listens = matches!(used_for, SocketAddrUse::TcpBind | SocketAddrUse::TcpListen);
                let allowed = listens && network.may_listen(address);
                Box::pin(async move { allowed })
            });
        }
        Network::None => {}
    }
    Ok(wasi)
}

/// Bounds on what a guest may allocate.
pub(crate) fn limits(guest: &Guest) -> StoreLimits {
    let limits = StoreLimitsBuilder::new();
    match guest.memory.map(usize::try_from) {
        Some(Ok(bytes)) => limits.memory_size(bytes).build(),
        _ => limits.build(),
    }
}

fn preopen(wasi: &mut WasiCtxBuilder, host: &Path, name: &str) -> Result<(), Error> {
    wasi.preopened_dir(host, name, FsPerms::ReadWrite).map(drop).map_err(|error| Error::Engine {
        operation: "open folder for guest",
        why: format!("{}: {}", host.display(), crate::backend::one_line(&error)),
    })
}

/// The folders in `/` that this user may open.
fn folders_of_root() -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir("/").map_err(failed("list /"))?;
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    Ok(folders.map(|entry| entry.path()).filter(|path| fs::read_dir(path).is_ok()).collect())
}
