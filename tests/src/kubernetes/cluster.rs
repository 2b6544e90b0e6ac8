//! A cluster as its users see it: by `kubectl`.

use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    fs,
    sync::{Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::{
    Namespace, metrics,
    namespace::Place,
    node::{self, Handlers},
};
use crate::{Bed, Cmd, Image, Suite, cri::Cri, prerequisites, shared};

/// Where images go that a cluster of others' is to pull: a registry, and a path in it.
const REGISTRY: &str = "LIGHTER_K8S_REGISTRY";

/// How long an image may take to get there.
const PUSHED_WITHIN: Duration = Duration::from_secs(600);

/// A Kubernetes with Lighter's runtime classes.
pub struct Cluster {
    /// None for a cluster that was given.
    bed: Option<&'static Bed>,
    /// Held by every test, and by one that disturbs the others alone.
    gate: RwLock<()>,
    /// Whether it says what pods use.
    metrics: OnceLock<bool>,
}

impl Cluster {
    /// The cluster that the tests of one binary share: that of `KUBECONFIG`, else a node over `suite`'s containerd, made on
    /// first use. None, with a line that says so, where there is nothing of this suite's to test.
    #[track_caller]
    pub fn get(suite: Suite) -> Option<&'static Cluster> {
        static GIVEN: Cluster = Cluster::new(None);
        static OWN: [OnceLock<Result<Cluster, String>>; Suite::ALL.len()] =
            [const { OnceLock::new() }; Suite::ALL.len()];
        if given() {
            registry();
            if suite != Suite::ALL[0] {
                println!("skipped: the cluster that KUBECONFIG names is tested once, not for {suite}'s containerd");
                return None;
            }
            return Some(&GIVEN);
        }
        let own = OWN[suite as usize].get_or_init(|| {
            let bed = node::start(suite, Handlers::Configured).map_err(|error| format!("{error:#}"))?;
            Ok(Cluster::new(Some(shared::share(bed))))
        });
        let cluster = own.as_ref().unwrap_or_else(|error| panic!("no Kubernetes on {suite}: {error}"));
        cluster.bed.iter().for_each(|bed| bed.logs().show_on_panic());
        Some(cluster)
    }

    /// A node of one test's own that has never heard of Lighter, to be removed by [`Cluster::remove`]. None, with a line that says
    /// so, where a cluster was given.
    #[track_caller]
    pub fn bare(suite: Suite) -> Option<&'static Cluster> {
        if given() {
            println!("skipped: a cluster that was given is not changed");
            return None;
        }
        let bed =
            node::start(suite, Handlers::None).unwrap_or_else(|error| panic!("no Kubernetes on {suite}: {error:#}"));
        let bed = shared::share(bed);
        bed.logs().show_on_panic();
        Some(Box::leak(Box::new(Cluster::new(Some(bed)))))
    }

    /// A node over `suite`'s containerd that nobody else uses, with Lighter's runtime classes; to be removed by
    /// [`Cluster::remove`].
    ///
    /// # Errors
    /// When it can't be made.
    pub fn own_node(suite: Suite) -> Result<&'static Cluster> {
        let bed = shared::share(node::start(suite, Handlers::Configured)?);
        Ok(Box::leak(Box::new(Cluster::new(Some(bed)))))
    }

    const fn new(bed: Option<&'static Bed>) -> Cluster {
        Cluster { bed, gate: RwLock::new(()), metrics: OnceLock::new() }
    }

    /// Ends our own node, before the process does.
    pub fn remove(&self) {
        self.bed.iter().for_each(|bed| bed.remove());
    }

    /// The bed of our own node: what may be restarted. None, with a line that says so, in a cluster that was given.
    pub fn own(&self) -> Option<&'static Bed> {
        if self.bed.is_none() {
            println!("skipped: this is done to the testbed's own node only");
        }
        self.bed
    }

    /// `kubectl`, as administrator.
    pub fn kubectl(&self, arguments: &[impl AsRef<OsStr>]) -> Cmd {
        let arguments = arguments.iter().map(|word| word.as_ref().to_owned());
        match self.bed {
            Some(bed) => {
                let client =
                    [OsString::from("env"), format!("KUBECONFIG={}", node::KUBECONFIG).into(), "kubectl".into()];
                bed.cmd(&client.into_iter().chain(arguments).collect::<Vec<_>>())
            }
            None => Cmd::of_host(&[OsString::from("kubectl")].into_iter().chain(arguments).collect::<Vec<_>>()),
        }
    }

    /// Whether `kubectl top` and autoscalers are told what pods use. A cluster that was given may have nobody who does, which is
    /// said in a line.
    #[track_caller]
    pub fn has_metrics(&self) -> bool {
        let has = *self.metrics.get_or_init(|| match self.bed {
            Some(bed) => {
                metrics::start(bed).unwrap_or_else(|error| panic!("no metrics of {}: {error:#}", bed.suite()));
                true
            }
            None => self.kubectl(&["get", "--raw", metrics::PATH]).run().status == 0,
        });
        if !has {
            println!("skipped: the cluster has no metrics server");
        }
        has
    }

    /// Whether pods of a runtime class of ours can run: where a node has the class's label.
    #[track_caller]
    pub fn has_class(&self, class: &str) -> bool {
        let label = format!("run.lighter/{class}=true");
        !self.kubectl(&["get", "nodes", "--selector", &label, "-o", "name"]).run().ok().stdout.is_empty()
    }

    /// The credentials of our own node's administrator, in one file.
    ///
    /// # Panics
    /// For a cluster that was given.
    #[track_caller]
    pub fn credentials(&self) -> String {
        assert!(self.bed.is_some(), "somebody else's credentials");
        self.kubectl(&["config", "view", "--flatten", "--raw"]).run().ok().stdout
    }

    /// Puts an image where the cluster's nodes find it, and returns the name by which they do.
    #[track_caller]
    pub fn image(&self, image: &Image) -> String {
        match self.bed {
            Some(bed) => {
                Cri::connect(bed).import(image);
                image.name().to_owned()
            }
            None => push(image),
        }
    }

    /// A namespace for one test, which has no other.
    #[track_caller]
    pub fn namespace(&'static self, name: &str) -> Namespace {
        let among = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Namespace::create(self, name, Place::Among(among))
    }

    /// A namespace for a test that disturbs others, which wait meanwhile.
    #[track_caller]
    pub fn namespace_alone(&'static self, name: &str) -> Namespace {
        let alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        Namespace::create(self, name, Place::Alone(alone))
    }

    /// Busybox, static.
    #[track_caller]
    pub fn busybox(&self) -> Vec<u8> {
        let path = match self.bed {
            Some(bed) => bed.path("/bin/busybox"),
            None => {
                need_busybox();
                "/bin/busybox".into()
            }
        };
        fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// Fetches a URL from where `kubectl` runs.
    #[track_caller]
    pub fn fetch(&self, url: &str) -> Cmd {
        let fetch = ["busybox", "wget", "-q", "-O-", url].map(OsString::from);
        match self.bed {
            Some(bed) => bed.cmd(&fetch),
            None => {
                need_busybox();
                Cmd::of_host(&fetch)
            }
        }
    }

    /// Kills the kubelet of our own node; what it has started runs on.
    #[track_caller]
    pub fn kill_kubelet(bed: &Bed) {
        node::kill_kubelet(bed).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Starts it again, and waits until the node is ready.
    #[track_caller]
    pub fn start_kubelet(bed: &Bed) {
        node::start_kubelet(bed).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Whether there is a cluster to be tested other than our own.
fn given() -> bool {
    env::var_os("KUBECONFIG").is_some_and(|path| !path.is_empty())
}

#[track_caller]
fn need_busybox() {
    prerequisites::need_program("busybox", "busybox-static").unwrap_or_else(|error| panic!("{error:#}"));
}

/// Asked for before anything is done to the cluster: whose `KUBECONFIG` is always set may not have meant it.
#[track_caller]
fn registry() -> String {
    env::var(REGISTRY).unwrap_or_else(|_| {
        panic!(
            "KUBECONFIG names a cluster to be tested, and {REGISTRY} is not set: a registry (and path) that you can push to, and \
             its nodes pull from; without KUBECONFIG, a node of our own is tested"
        )
    })
}

/// To the registry that the cluster pulls from, under a name of its content: nodes keep what they have pulled.
#[track_caller]
fn push(image: &Image) -> String {
    static PUSHED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let registry = registry();
    let archive = image.to_tar();
    let digest: String = Sha256::digest(&archive).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let (short, _) = image.name().rsplit('/').next().and_then(|name| name.split_once(':')).unwrap_or_default();
    let name = format!("{}/{short}:{digest}", registry.trim_end_matches('/'));
    let mut pushed = PUSHED.lock().unwrap_or_else(PoisonError::into_inner);
    if pushed.contains(&name) {
        return name;
    }
    prerequisites::need_program("skopeo", "skopeo").unwrap_or_else(|error| panic!("{error:#}"));
    let file = tempfile::NamedTempFile::new().expect("a file for the image");
    fs::write(file.path(), archive).expect("write the image");
    let from = format!("oci-archive:{}", file.path().display());
    let copy = ["skopeo", "copy", "--quiet", "--all", &from, &format!("docker://{name}")].map(OsString::from);
    Cmd::of_host(&copy).timeout(PUSHED_WITHIN).run().ok();
    pushed.insert(name.clone());
    name
}
