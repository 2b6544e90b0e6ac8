//! What a bed's containerd is told of CRI.

use super::PAUSE;
use crate::{Suite, vm};

/// The network of pods: a bridge, with ports of the node's forwarded. Its subnet is the bed's own.
const NETWORK: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
"#;

/// The options of `lighter-wamr`.
const WAMR: &str = "/etc/containerd/lighter-wamr.toml";

/// Where the shim is in a bed.
const SHIM: &str = "/usr/local/bin/containerd-shim-lighter-v1";

/// Files that belong to it: path in the bed and text.
pub(crate) const fn files() -> [(&'static str, &'static str); 2] {
    [("/etc/cni/net.d/10-pods.conflist", NETWORK), (WAMR, "engine = \"wamr\"\n")]
}

/// The part of containerd's configuration.
///
/// `restrict_oom_score_adj` because a container of a machine may lack CAP_SYS_RESOURCE, without which sandboxes (-998) can't
/// start. `use_local_image_pull` because the transfer service, by which CRI pulls since 2.1, doesn't unpack what is for another
/// platform. Privileged containers get none of the node's devices: it is the machine's own that the bed has.
pub(crate) fn containerd(suite: Suite) -> String {
    let (runtime, sandbox) = match suite {
        Suite::Trixie => ("io.containerd.grpc.v1.cri", format!("  sandbox_image = \"{PAUSE}\"\n")),
        Suite::Forky => (
            "io.containerd.cri.v1.runtime",
            format!(
                "[plugins.\"io.containerd.cri.v1.images\"]\n  use_local_image_pull = true\n\
                 [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"{PAUSE}\"\n"
            ),
        ),
    };
    let mut text = format!("[plugins.\"{runtime}\"]\n  restrict_oom_score_adj = true\n{sandbox}");
    for (handler, shim) in [
        ("runc", "io.containerd.runc.v2"),
        ("lighter", crate::RUNTIME),
        ("lighter-wamr", crate::RUNTIME),
        // The shim by the engine's name.
        ("lighter-wasmtime", "io.containerd.wasmtime.v1"),
        ("lighter-wasmedge", "io.containerd.wasmedge.v1"),
        ("lighter-sandbox", crate::RUNTIME),
        // Of runtimes of this type only, containerd asks what they can do.
        ("lighter-by-path", "io.containerd.runc.v2"),
    ] {
        let table = format!("plugins.\"{runtime}\".containerd.runtimes.{handler}");
        text += &format!(
            "[{table}]\n  runtime_type = \"{shim}\"\n  privileged_without_host_devices = true\n  \
             pod_annotations = [\"run.lighter.*\"]\n  container_annotations = [\"run.lighter.*\"]\n"
        );
        if handler == "lighter-by-path" {
            text += &format!("  runtime_path = \"{SHIM}\"\n");
        }
        // 1.7 does not know it, and runs a pause container.
        if handler == "lighter-sandbox" {
            text += "  sandboxer = \"shim\"\n";
        }
        if handler == "lighter-wamr" {
            text += &format!("[{table}.options]\n  ConfigPath = \"{WAMR}\"\n");
        } else if vm::has_systemds_cgroups() {
            text += &format!("[{table}.options]\n  SystemdCgroup = true\n");
        }
    }
    text
}
