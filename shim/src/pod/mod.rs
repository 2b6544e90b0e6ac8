//! The pod that a daemon holds itself, where containerd leaves pods to the shim (`sandboxer = "shim"`): there is no pause
//! container then.
//!
//! ```text
//! (none) ─▶ Created ─▶ Ready ─▶ Stopped
//! ```
//!
//! What a pause container would hold is held by a thread of the daemon's ([`namespaces`]), and what containerd would put
//! beside it ([`files`], [`sysctls`]) is made here. With the daemon's end the namespaces are gone, whatever ended it; files
//! are in the pod's bundle, for `delete`.

mod config;
mod files;
mod init;
mod leftovers;
mod namespaces;
mod service;
mod sysctls;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use lighter_launch::Exit;
use lighter_oci::Cgroup;
use nix::libc;
use oci_spec::runtime::Spec;
use tokio::sync::watch;

use self::{
    config::{Mode, PodConfig},
    namespaces::{Namespaces, Wanted},
};
pub(crate) use self::{
    init::{ACTION, run},
    leftovers::remove_leftovers,
    service::SandboxService,
};
use crate::error::Error;

/// What is reported of a pod that ended by itself: its first process was killed.
const KILLED: u32 = 128 + libc::SIGKILL.unsigned_abs();

/// The daemon's pod, if it holds one.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    phase: Mutex<Phase>,
    end: Arc<watch::Sender<Option<Exit>>>,
}

#[derive(Debug)]
enum Phase {
    None,
    Created(Held),
    Ready(Held),
    Stopped { id: String, created: SystemTime },
}

#[derive(Debug)]
struct Held {
    id: String,
    bundle: PathBuf,
    created: SystemTime,
    namespaces: Namespaces,
}

/// What a pod is made from.
#[derive(Debug)]
pub(crate) struct CreatePod {
    /// CRI's, which its containers name as well.
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    /// Its network namespace; `None` where it is the host's.
    pub(crate) network: Option<PathBuf>,
    /// What CRI says of it.
    pub(crate) config: PodConfig,
}

/// What is said of a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    /// Whose namespaces in `/proc` are the pod's; 0 once they are gone.
    pub(crate) pid: u32,
    pub(crate) ready: bool,
    pub(crate) created: SystemTime,
    pub(crate) end: Option<Exit>,
}

impl Pod {
    pub(crate) fn new() -> Self {
        let end = Arc::new(watch::Sender::new(None));
        Self { shared: Arc::new(Shared { phase: Mutex::new(Phase::None), end }) }
    }

    /// Makes the pod: its namespaces and files. On an error nothing of it is left.
    pub(crate) fn create(&self, request: CreatePod) -> Result<(), Error> {
        let CreatePod { id, bundle, network, config } = request;
        if id.is_empty() || !bundle.is_absolute() {
            let why = format!("{id:?} in {bundle:?}; a pod has an id, and its bundle is an absolute path");
            return Err(Error::Request { what: "the pod", why });
        }
        let mut phase = self.lock();
        if !matches!(*phase, Phase::None) {
            return Err(Error::PodExists(id));
        }
        if config.users == Mode::Pod {
            return Err(Error::PodUsers);
        }
        let own_ipc = config.ipc != Mode::Node;
        let own_network = network.is_some();
        let sysctls = sysctls::checked(&config.sysctls, own_network, own_ipc)?;
        let wanted = Wanted {
            network,
            ipc: own_ipc,
            // As containerd has it: who is on the host's network has the host's name.
            hostname: own_network.then(|| config.hostname.clone()),
            processes: config.processes == Mode::Pod,
            sysctls,
        };
        let end = Arc::clone(&self.shared.end);
        // Of a pod that was stopped, the end is known already.
        let ended = move || {
            end.send_if_modified(|end| set(end, KILLED));
        };
        let namespaces = Namespaces::hold(wanted, ended)?;
        files::make(&bundle, &config, own_ipc)?;
        *phase = Phase::Created(Held { id, bundle, created: SystemTime::now(), namespaces });
        Ok(())
    }

    /// Declares the pod ready for containers.
    pub(crate) fn start(&self, id: &str) -> Result<Status, Error> {
        let mut phase = self.lock();
        match std::mem::replace(&mut *phase, Phase::None) {
            Phase::Created(held) if held.id == id => *phase = Phase::Ready(held),
            other => {
                *phase = other;
                return Err(Error::NoPod(id.to_owned()));
            }
        }
        drop(phase);
        self.status(id)
    }

    /// Lets go of its namespaces and removes its files. Its containers have ended. A pod that has stopped is no error.
    pub(crate) fn stop(&self, id: &str) -> Result<(), Error> {
        let mut phase = self.lock();
        let held = match std::mem::replace(&mut *phase, Phase::None) {
            Phase::Created(held) | Phase::Ready(held) if held.id == id => held,
            other => {
                let known = matches!(&other, Phase::Stopped { id: stopped, .. } if stopped == id);
                *phase = other;
                return if known { Ok(()) } else { Err(Error::NoPod(id.to_owned())) };
            }
        };
        *phase = Phase::Stopped { id: held.id, created: held.created };
        self.shared.end.send_if_modified(|end| set(end, 0));
        drop(held.namespaces);
        files::remove(&held.bundle)
    }

    /// Whether there is one that containerd has not asked to shut down.
    pub(crate) fn is_held(&self) -> bool {
        !matches!(*self.lock(), Phase::None)
    }

    /// What is to be said of it.
    pub(crate) fn status(&self, id: &str) -> Result<Status, Error> {
        let end = *self.shared.end.borrow();
        let live = |held: &Held, ready| Status {
            pid: if end.is_none() { held.namespaces.pid() } else { 0 },
            ready: ready && end.is_none(),
            created: held.created,
            end,
        };
        match &*self.lock() {
            Phase::Created(held) if held.id == id => Ok(live(held, false)),
            Phase::Ready(held) if held.id == id => Ok(live(held, true)),
            Phase::Stopped { id: stopped, created } if stopped == id => {
                Ok(Status { pid: 0, ready: false, created: *created, end })
            }
            Phase::None | Phase::Created(_) | Phase::Ready(_) | Phase::Stopped { .. } => {
                Err(Error::NoPod(id.to_owned()))
            }
        }
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self, id: &str) -> Result<Exit, Error> {
        self.status(id)?;
        let mut end = self.shared.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        ended.ok().and_then(|end| *end).ok_or_else(|| Error::NoPod(id.to_owned()))
    }

    /// Puts the pod's files into a container's spec, where containerd would have put those of a pause container's pod.
    pub(crate) fn add_files(&self, spec: &mut Spec) -> Result<(), Error> {
        self.bundle().map_or(Ok(()), |bundle| files::add(&bundle, spec))
    }

    /// Notes where a container's processes are, for whoever has to clean up after a daemon that was killed.
    pub(crate) fn note(&self, container: &str, its_bundle: &Path, cgroup: &Cgroup) -> Result<(), Error> {
        self.bundle().map_or(Ok(()), |bundle| leftovers::note(&bundle, container, its_bundle, cgroup))
    }

    /// Takes the note back.
    pub(crate) fn forget(&self, container: &str) {
        if let Some(bundle) = self.bundle() {
            leftovers::forget(&bundle, container);
        }
    }

    /// The bundle of a pod that lives.
    fn bundle(&self) -> Option<PathBuf> {
        match &*self.lock() {
            Phase::Created(held) | Phase::Ready(held) => Some(held.bundle.clone()),
            Phase::None | Phase::Stopped { .. } => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        // Nothing that holds it can panic half-way through a change.
        self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets how the pod ended, unless that is known.
fn set(end: &mut Option<Exit>, status: u32) -> bool {
    let unknown = end.is_none();
    if unknown {
        *end = Some(Exit { status, at: SystemTime::now() });
    }
    unknown
}

/// The folder inside a pod's bundle where its files are mounted. containerd makes it for a root filesystem, unmounts what
/// is there before it removes the bundle, and so cleans up even where nobody else does.
fn mounted(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nix::{
        mount::{MntFlags, MsFlags, mount, umount2},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    #[tokio::test]
    async fn a_life() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: making namespaces takes root");
            return;
        }
        // What is mounted stays this thread's.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let bundle = tempfile::tempdir().unwrap();
        let request = |id: &str| CreatePod {
            id: id.to_owned(),
            bundle: bundle.path().to_owned(),
            network: None,
            config: PodConfig::default(),
        };
        let pod = Pod::new();
        assert!(!pod.is_held());
        assert!(matches!(pod.start("p"), Err(Error::NoPod(_))));
        for nonsense in [request(""), CreatePod { bundle: "folder".into(), ..request("p") }] {
            assert!(matches!(pod.create(nonsense), Err(Error::Request { .. })));
        }
        let users = CreatePod { config: PodConfig { users: Mode::Pod, ..PodConfig::default() }, ..request("p") };
        assert!(matches!(pod.create(users), Err(Error::PodUsers)));
        assert!(!pod.is_held());

        pod.create(request("p")).unwrap();
        assert!(matches!(pod.create(request("q")), Err(Error::PodExists(_))));
        assert!(matches!(pod.status("q"), Err(Error::NoPod(_))));
        assert!(!pod.status("p").unwrap().ready);
        assert!(pod.start("p").unwrap().ready);
        assert!(matches!(pod.start("p"), Err(Error::NoPod(_))));
        let pid = pod.status("p").unwrap().pid;
        assert!(std::fs::exists(format!("/proc/{pid}/ns/ipc")).unwrap());
        let mut spec = Spec::default();
        pod.add_files(&mut spec).unwrap();
        let hosts = |mount: &oci_spec::runtime::Mount| mount.destination() == Path::new("/etc/hosts");
        assert!(spec.mounts().iter().flatten().any(hosts));

        assert!(matches!(pod.stop("q"), Err(Error::NoPod(_))));
        pod.stop("p").unwrap();
        pod.stop("p").unwrap();
        let status = pod.status("p").unwrap();
        assert_eq!((status.pid, status.ready, status.end.unwrap().status), (0, false, 0));
        assert_eq!(pod.wait("p").await.unwrap().status, 0);
        assert!(pod.is_held(), "until the daemon is shut down");
        // What is to be unmounted is looked up in the namespace of the process, not in the one of this thread.
        umount2(&mounted(bundle.path()), MntFlags::MNT_DETACH).unwrap();
    }
}
