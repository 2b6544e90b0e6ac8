//! A node with its control plane in a bed: each program as a process beside containerd.
//!
//! What they listen on is the bed's own network. It has one address that is not the loopback's, for Kubernetes takes no other
//! for a node's.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{binaries, names};
use crate::{
    Bed, Suite, checkout,
    cri::Cri,
    daemons::{self, CONTAINERD_SOCKET},
};

/// Where the programs keep everything, but for what the kubelet has in /var/lib/kubelet.
pub(super) const FOLDER: &str = "/run/kubernetes";

/// The administrator's credentials.
pub(super) const KUBECONFIG: &str = "/run/kubernetes/admin.conf";

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// The node's address and the API's port on it.
pub(super) const ADDRESS: &str = "10.89.0.1";
const PORT: u16 = 16443;

const ETCD: &str = "http://127.0.0.1:12379";

/// Pods' addresses are those of the bed's CNI.
const PODS: &str = "10.88.0.0/16";
const SERVICES: &str = "10.96.0.0/16";

/// Kernel's settings that the kubelet wants, and would change: they are the machine's, not the bed's.
const SETTINGS: &[(&str, u32)] = &[
    ("kernel/keys/root_maxbytes", 25_000_000),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
];

/// For pods that are compared with ours, by name.
const RUNC: &str = "---\napiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: runc}\nhandler: runc\n";

/// Who tells the node of Lighter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handlers {
    /// The testbed's configuration, and runtime classes for it.
    Configured,
    /// Nobody yet.
    None,
}

/// Makes a bed with a node that is ready.
pub(super) fn start(suite: Suite, handlers: Handlers) -> Result<Bed> {
    let bed = Bed::start_with(suite, Some(&binaries::get()?))?;
    match set_up(&bed, handlers) {
        Ok(()) => Ok(bed),
        Err(error) => {
            bed.remove();
            Err(error)
        }
    }
}

fn set_up(bed: &Bed, handlers: Handlers) -> Result<()> {
    // The image that holds a pod's namespaces.
    Cri::connect(bed);
    configure(bed)?;
    if handlers == Handlers::None {
        bed.write(CONTAINERD_CONFIG, &without_handlers(&bed.suite().containerd_config()))?;
        bed.kill_containerd();
        bed.start_containerd();
    }
    start_control_plane(bed)?;
    names::start(bed)?;
    start_kubelet(bed)?;
    let proxy = format!(
        "kube-proxy --kubeconfig={KUBECONFIG} --hostname-override={} --proxy-mode=iptables --cluster-cidr={PODS} \
         --masquerade-all --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
         --conntrack-tcp-timeout-close-wait=0",
        name(bed)
    );
    daemons::start(bed, "kube-proxy", &proxy, || succeeds(bed, "iptables -t nat -S KUBE-SERVICES >/dev/null 2>&1"))?;
    if handlers == Handlers::None {
        return Ok(());
    }
    let path = checkout().join("k8s/base/runtimeclasses.yaml");
    let classes = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let labels = labels(bed.suite()).map(|class| format!("run.lighter/{class}=true")).collect::<Vec<_>>().join(" ");
    let apply =
        format!("export KUBECONFIG={KUBECONFIG}; kubectl apply -f -; kubectl label node {} {labels}", name(bed));
    let applied = bed.sh(&apply).stdin(classes + RUNC).try_run()?;
    ensure!(applied.status == 0, "make the runtime classes: {applied}");
    Ok(())
}

/// The classes that a suite's node can run, as the installer finds out. WasmEdge's library is in forky's bed only.
fn labels(suite: Suite) -> impl Iterator<Item = &'static str> {
    let classes = ["lighter", "lighter-wasmtime", "lighter-wamr", "lighter-wasmedge"];
    classes.into_iter().filter(move |class| suite == Suite::Forky || *class != "lighter-wasmedge")
}

/// A configuration of containerd's without our handlers, and without what they need.
fn without_handlers(config: &str) -> String {
    let mut ours = false;
    let kept = config.lines().filter(|line| {
        if line.starts_with('[') {
            ours = line.contains(".runtimes.lighter");
        }
        !ours && !line.contains("use_local_image_pull")
    });
    kept.map(|line| format!("{line}\n")).collect()
}

/// The node's name: the host's.
pub(super) fn name(bed: &Bed) -> &'static str {
    bed.suite().name()
}

fn configure(bed: &Bed) -> Result<()> {
    let mut script = format!(
        "mkdir -p {FOLDER}/certs {FOLDER}/proc
         openssl genrsa -out {FOLDER}/sa.key 2048 2>/dev/null
         ln -sf /dev/null /dev/kmsg
         ip link add node0 type veth peer name nowhere
         ip address add {ADDRESS}/24 dev node0
         ip link set node0 up
         ip link set nowhere up
         ip route add default dev node0
         : >{FOLDER}/resolv.conf
         "
    );
    // In the bed they look as the kubelet wants them.
    for (setting, value) in SETTINGS {
        let file = format!("{FOLDER}/proc/{}", setting.replace('/', "."));
        script += &format!("echo {value} >{file}; mount --bind {file} /proc/sys/{setting}\n");
    }
    let configured = bed.sh(&script).try_run()?;
    ensure!(configured.status == 0, "set the node up: {configured}");
    bed.write(&format!("{FOLDER}/tokens.csv"), "admintoken,admin,admin,system:masters\n")?;
    bed.write(KUBECONFIG, &kubeconfig())?;
    bed.write(
        &format!("{FOLDER}/kubelet.yaml"),
        &format!("{KUBELET}clusterDNS: [{ADDRESS}]\nclusterDomain: {}\n", names::DOMAIN),
    )
}

fn kubeconfig() -> String {
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters: [{{name: bed, cluster: {{server: 'https://{ADDRESS}:{PORT}', \
         certificate-authority: {FOLDER}/certs/apiserver.crt}}}}]\n\
         users: [{{name: admin, user: {{token: admintoken}}}}]\n\
         contexts: [{{name: bed, context: {{cluster: bed, user: admin}}}}]\n\
         current-context: bed\n"
    )
}

/// Nothing is evicted for what the machine has little of, which is not the bed's; no image is removed. The API may be called as
/// often as by newer kubelets.
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
configMapAndSecretChangeDetectionStrategy: Watch
containerLogMaxSize: 10Mi
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
failSwapOn: false
kubeAPIBurst: 100
kubeAPIQPS: 50
imageGCHighThresholdPercent: 100
makeIPTablesUtilChains: true
maxPods: 300
oomScoreAdj: 0
protectKernelDefaults: true
resolvConf: /run/kubernetes/resolv.conf
syncFrequency: 10s
";

fn start_control_plane(bed: &Bed) -> Result<()> {
    let etcd = format!(
        "etcd --log-level=warn --data-dir {FOLDER}/etcd --unsafe-no-fsync --listen-client-urls {ETCD} --advertise-client-urls {ETCD} \
         --listen-peer-urls http://127.0.0.1:12380"
    );
    daemons::start(bed, "etcd", &etcd, || succeeds(bed, &format!("busybox wget -q -O- {ETCD}/health")))?;
    let api = format!(
        "kube-apiserver --etcd-servers={ETCD} --advertise-address={ADDRESS} --secure-port={PORT} --cert-dir={FOLDER}/certs \
         --token-auth-file={FOLDER}/tokens.csv --authorization-mode=RBAC --allow-privileged \
         --service-account-key-file={FOLDER}/sa.key --service-account-signing-key-file={FOLDER}/sa.key \
         --service-account-issuer=https://kubernetes.default.svc --service-cluster-ip-range={SERVICES} \
         --kubelet-preferred-address-types=InternalIP"
    );
    let ready = format!("KUBECONFIG={KUBECONFIG} kubectl get --raw /readyz");
    daemons::start(bed, "kube-apiserver", &api, || succeeds(bed, &ready))?;
    let controllers = format!(
        "kube-controller-manager --kubeconfig={KUBECONFIG} --service-account-private-key-file={FOLDER}/sa.key \
         --root-ca-file={FOLDER}/certs/apiserver.crt --leader-elect=false --kube-api-qps=50 --kube-api-burst=100 --horizontal-pod-autoscaler-sync-period=5s"
    );
    let account = format!("KUBECONFIG={KUBECONFIG} kubectl get serviceaccount default");
    daemons::start(bed, "kube-controller-manager", &controllers, || succeeds(bed, &account))?;
    let scheduler = format!("kube-scheduler --kubeconfig={KUBECONFIG} --leader-elect=false");
    daemons::start(bed, "kube-scheduler", &scheduler, || Ok(true))
}

/// Starts it, also again, and waits until the node is ready.
pub(super) fn start_kubelet(bed: &Bed) -> Result<()> {
    let name = name(bed);
    let kubelet = format!(
        "kubelet --config={FOLDER}/kubelet.yaml --kubeconfig={KUBECONFIG} --cert-dir={FOLDER}/certs --hostname-override={name} \
         --node-ip={ADDRESS} --container-runtime=remote --container-runtime-endpoint=unix://{CONTAINERD_SOCKET} --v=2"
    );
    // The kubelet's own answer as well: for a while after its end the API server still takes the node for ready.
    let ready = format!(
        "export KUBECONFIG={KUBECONFIG}
         kubectl get --raw /api/v1/nodes/{name}/proxy/healthz
         kubectl get node {name} -o jsonpath='{{.status.conditions[?(@.type==\"Ready\")].status}}' | grep -q True"
    );
    daemons::start(bed, "kubelet", &kubelet, || succeeds(bed, &ready)).context("wait for the node to be ready")
}

/// Ends it; containers live on.
pub(super) fn kill_kubelet(bed: &Bed) -> Result<()> {
    let killed = bed
        .sh("pid=$(cat /run/bed/kubelet.pid); kill -9 $pid; while [ -e /proc/$pid ]; do sleep 0.01; done")
        .try_run()?;
    ensure!(killed.status == 0, "end the kubelet: {killed}");
    Ok(())
}

pub(super) fn succeeds(bed: &Bed, script: &str) -> Result<bool> {
    bed.sh(script).try_run().map(|output| output.status == 0)
}
