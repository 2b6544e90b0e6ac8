//! What a guest gets of WASI: what its plan grants, and nothing by default.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lighter_runtime_api::{Error, Guest, Network};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, sockets::SocketAddrUse};

use crate::{
    backend::{failed, one_line},
    imports::Imports,
    state::Role,
};

/// Bytes of random numbers that a guest may ask for in one call.
pub(crate) const RANDOM_BYTES: u64 = 16 << 20;

/// Arguments, environment, streams and files of the plan: all that WASI 0.1 knows.
pub(crate) fn context(guest: &Guest) -> Result<WasiCtxBuilder, Error> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.args(&guest.args).envs(&environment(guest)).inherit_stdio().max_random_size(RANDOM_BYTES);
    files(&mut wasi, guest, Role::Command)?;
    Ok(wasi)
}

/// Files and network of the plan, as far as a component asks for them.
pub(crate) fn grants(guest: &Guest, imports: Imports, role: Role) -> Result<WasiCtxBuilder, Error> {
    let mut wasi = WasiCtxBuilder::new();
    if imports.preopens {
        files(&mut wasi, guest, role)?;
    }
    if imports.sockets {
        sockets(&mut wasi, &guest.grants.network);
    }
    Ok(wasi)
}

/// The plan's environment, and the working directory as Go's runtime takes it from there.
pub(crate) fn environment(guest: &Guest) -> Vec<(String, String)> {
    let mut env = guest.env.clone();
    if guest.cwd != Path::new("/") && !env.iter().any(|(name, _)| name == "PWD") {
        env.push(("PWD".to_owned(), guest.cwd.to_string_lossy().into_owned()));
    }
    env
}

/// The sandbox's whole `/` is the guest's: what must not be seen is not in it, and what must not be written is mounted
/// read-only. Called in the sealed init.
fn files(wasi: &mut WasiCtxBuilder, guest: &Guest, role: Role) -> Result<(), Error> {
    // A command is one guest in a process: a thread for each file operation would only add switches. Handlers share a
    // thread, and one that waits for a disk must not hold the others up.
    wasi.allow_blocking_current_thread(role == Role::Command);
    preopen(wasi, Path::new("/"), "/")?;
    if guest.cwd != Path::new("/") {
        // WASI 0.1 has no working directory, and wasi-libc does not ask WASI 0.2 for it. It cuts the leading slash off a
        // path and then takes the preopen with the longest matching name. So the root's folders get names of their own,
        // and "." is what is left: relative paths.
        for folder in folders_of_root()? {
            preopen(wasi, &folder, &folder.to_string_lossy())?;
        }
        preopen(wasi, &guest.cwd, ".")?;
    }
    Ok(())
}

fn sockets(wasi: &mut WasiCtxBuilder, network: &Network) {
    match network {
        Network::All => {
            wasi.inherit_network().allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
        }
        Network::Listen(_) => {
            let network = network.clone();
            wasi.allow_tcp(true).socket_addr_check(move |address, used_for| {
                let listens = matches!(used_for, SocketAddrUse::TcpBind | SocketAddrUse::TcpListen);
                let allowed = listens && network.may_listen(address);
                Box::pin(async move { allowed })
            });
        }
        Network::None => {}
    }
}

fn preopen(wasi: &mut WasiCtxBuilder, host: &Path, name: &str) -> Result<(), Error> {
    wasi.preopened_dir(host, name, FsPerms::ReadWrite).map(drop).map_err(|error| Error::Engine {
        operation: "open folder for guest",
        why: format!("{}: {}", host.display(), one_line(&error)),
    })
}

/// The folders in `/` that this user may open.
fn folders_of_root() -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir("/").map_err(failed("list /"))?;
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    Ok(folders.map(|entry| entry.path()).filter(|path| fs::read_dir(path).is_ok()).collect())
}
