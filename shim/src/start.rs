//! The `start` action: makes sure that the container's pod has a daemon, and prints its address.

use std::{
    env, fs,
    fs::File,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::DirBuilderExt,
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use containerd_shim::{Flags, StartOpts, api::Options, cgroup::set_cgroup_and_oom_score};
use nix::fcntl::{Flock, FlockArg};

use crate::{bootstrap, daemon::ACTION};

/// Annotations that name a pod, the first that is there: CRI's, and containerd's for everybody else.
const GROUPING: &[&str] = &["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];
/// Files in the bundle: its spec, and the daemon's address, which `delete` needs when the daemon is gone.
const SPEC: &str = "config.json";
pub(crate) const ADDRESS: &str = "address";

/// Runs in the bundle's folder.
pub(crate) fn run(argv0: &str, flags: &Flags) -> Result<()> {
    let (options, reply) = bootstrap::read(flags).context("read start parameters")?;
    anyhow::ensure!(!options.ttrpc_address.is_empty(), "TTRPC_ADDRESS is not set; the shim is started by containerd");
    let group = group(Path::new(SPEC))?.unwrap_or_else(|| options.id.clone());
    let address = options.socket_address(&group);
    if let Some(listener) = listen(&address)? {
        spawn(argv0, &options, listener, &address)?;
    }
    fs::write(ADDRESS, &address).context("write the daemon's address into the bundle")?;
    let answer = reply.encode(&address).context("encode answer")?;
    io::stdout().write_all(&answer).and_then(|()| io::stdout().flush()).context("answer containerd")
}

/// The pod that a container belongs to, if its spec names one. A pod that the daemon is to hold itself has no spec.
fn group(spec: &Path) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct Annotated {
        annotations: Option<std::collections::HashMap<String, String>>,
    }
    let text = match fs::read(spec) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read runtime spec {}", spec.display()))?,
    };
    let spec: Annotated = serde_json::from_slice(&text).context("decode runtime spec")?;
    let annotations = spec.annotations.unwrap_or_default();
    Ok(GROUPING.iter().find_map(|name| annotations.get(*name)).cloned())
}

/// Where a socket's address is in the file system.
pub(crate) fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// A listener at `address`, or `None` where a daemon serves there already. Of many at once, one gets the listener.
fn listen(address: &str) -> Result<Option<UnixListener>> {
    let path = socket_path(address);
    let folder = path.parent().context("socket address has no folder")?;
    fs::DirBuilder::new().recursive(true).mode(0o711).create(folder).context("create socket folder")?;
    // A lock on the folder itself leaves no file behind. Whoever holds it does a few system calls, no more.
    let folder = File::open(folder).context("open socket folder")?;
    let _lock =
        Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context("lock socket folder")?;
    match UnixListener::bind(path) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Ok(None);
            }
            // A daemon was killed and left its socket.
            fs::remove_file(path).context("remove stale socket")?;
            UnixListener::bind(path).map(Some).context("bind socket")
        }
        Err(error) => Err(error).with_context(|| format!("bind {}", path.display())),
    }
}

/// Starts the daemon with the listener. It serves from the first connection on, so nobody needs to wait for it.
fn spawn(argv0: &str, options: &StartOpts, listener: UnixListener, address: &str) -> Result<()> {
    let mut command = Command::new(env::current_exe().context("find own executable")?);
    command
        // The name under which containerd knows us chooses the engine.
        .arg0(argv0)
        .args(["-namespace", &options.namespace, "-id", &options.id, "-address", &options.address])
        .args(["-socket", address])
        .args(options.debug.then_some("-debug"))
        .arg(ACTION)
        .env_clear()
        .env("TTRPC_ADDRESS", &options.ttrpc_address)
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        // The listener: a descriptor of another number would take a fork, where this is a posix_spawn.
        .stdin(OwnedFd::from(listener))
        // containerd reads our output until everybody has closed it.
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut daemon = command.spawn().context("start daemon")?;
    let shim_cgroup = options.extension::<Options>().ok().flatten().map(|o| o.shim_cgroup).unwrap_or_default();
    if let Err(error) = set_cgroup_and_oom_score(daemon.id(), &shim_cgroup) {
        let _ = daemon.kill();
        let _ = daemon.wait();
        let _ = fs::remove_file(socket_path(address));
        return Err(error).with_context(|| format!("put daemon into cgroup {shim_cgroup:?} and set its OOM score"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_by_its_annotation() {
        let folder = tempfile::tempdir().unwrap();
        let spec = folder.path().join(SPEC);
        let table = [
            (r"{}", None),
            (r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#, Some("pod")),
            (r#"{"annotations":{"io.containerd.runc.v2.group":"g","io.kubernetes.cri.sandbox-id":"pod"}}"#, Some("g")),
        ];
        for (json, expected) in table {
            fs::write(&spec, json).unwrap();
            assert_eq!(group(&spec).unwrap().as_deref(), expected);
        }
        fs::write(&spec, "{").unwrap();
        assert!(group(&spec).is_err());
        fs::remove_file(&spec).unwrap();
        assert_eq!(group(&spec).unwrap(), None);
    }

    #[test]
    fn of_many_one_gets_the_listener_and_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix://{}/s/socket", folder.path().display());
        let winners: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20).map(|_| scope.spawn(|| listen(&address).unwrap())).collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1);
        drop(winners);
        assert!(listen(&address).unwrap().is_some());
    }
}
