//! From what the command line asks for to a plan, by way of a runtime spec like containerd's: one set of checks for both.

use std::{
    collections::HashMap,
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use lighter_oci::{ANNOTATION_PREFIX, Cache, Network, Plan, PlanRequest, Program, Source};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{
    folder::RunFolder,
    user::{User, is_privileged},
};
use crate::engines;

/// What the host has that name lookup takes.
const LOOKUP_FILES: &[&str] = &["/etc/resolv.conf", "/etc/hosts"];

/// All that makes one sandbox different from another.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// The command line; the first word is the program.
    pub(crate) args: Vec<String>,
    /// `NAME=VALUE`; the last of a name wins.
    pub(crate) env: Vec<String>,
    /// Absolute.
    pub(crate) cwd: PathBuf,
    /// Mounts of a runtime spec.
    pub(crate) volumes: Vec<Value>,
    /// Whether the root filesystem can't be written.
    pub(crate) read_only: bool,
    pub(crate) network: Network,
    /// Where the guest is served if no annotation says it; `None` where it is no HTTP handler.
    pub(crate) serves: Option<SocketAddr>,
    /// Lighter's annotations.
    pub(crate) annotations: HashMap<String, String>,
    /// Bytes for guest and runner together.
    pub(crate) memory: Option<u64>,
    /// Who the guest is; `None` where this process may not choose: itself.
    pub(crate) user: Option<User>,
}

impl Sandbox {
    /// The plan of a guest that ends with this process.
    pub(crate) fn plan(self, folder: &RunFolder, module: Source) -> Result<Plan> {
        let spec = self.spec(folder)?;
        let (cache_bytes, compilers) = engines::cache_bounds()?;
        let cache = cache_folder()?;
        let request = PlanRequest {
            otherwise: None,
            id: folder.id(),
            bundle: folder.path(),
            rootfs: Some(&folder.rootfs()),
            module,
            systemd_cgroup: false,
            cache: &cache,
            cache_bytes,
            compilers,
            allow_privileged: false,
        };
        let mut plan = Plan::new(spec, &request)?;
        if plan.program == Program::Native {
            bail!(
                "{:?} is a native program, and this command runs WebAssembly; run it with Docker or ctr",
                plan.entrypoint
            );
        }
        // An annotation takes from what the command line gives, and never adds to it.
        if plan.guest.grants.network == Network::All {
            plan.guest.grants.network = self.network;
        }
        if let Some(address) = self.serves
            && !self.annotations.contains_key(&format!("{ANNOTATION_PREFIX}http.address"))
        {
            plan.guest.http.address = address;
        }
        plan.tethered = true;
        plan.user_namespace = self.user.is_none();
        if plan.user_namespace
            && let Some(linux) = plan.sandbox.linux_mut()
        {
            // There is no cgroup to bound. The engine bounds the guest's memory.
            linux.set_resources(None);
        }
        Ok(plan)
    }

    fn spec(&self, folder: &RunFolder) -> Result<Spec> {
        let shares_network = self.network != Network::None || self.serves.is_some();
        let mut namespaces = vec!["pid", "mount", "ipc", "uts"];
        if !shares_network {
            namespaces.push("network");
        }
        let mut mounts = vec![json!({
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
        })];
        if self.network == Network::All {
            let there = LOOKUP_FILES.iter().filter(|file| Path::new(file).exists());
            mounts.extend(
                there.map(
                    |file| json!({"destination": file, "type": "bind", "source": file, "options": ["bind", "ro"]}),
                ),
            );
        }
        mounts.extend_from_slice(&self.volumes);
        let user = match self.user {
            // Its own group alone: without this, it would keep root's.
            Some(User { uid, gid }) => json!({"uid": uid, "gid": gid, "additionalGids": [gid]}),
            // The one user that its namespace has.
            None => json!({"uid": 0, "gid": 0}),
        };
        let spec = json!({
            "ociVersion": "1.1.0",
            "root": {"path": folder.rootfs(), "readonly": self.read_only},
            "hostname": "lighter",
            "process": {"args": self.args, "env": self.env, "cwd": self.cwd, "user": user},
            "mounts": mounts,
            "annotations": self.annotations,
            "linux": {
                "cgroupsPath": folder.cgroup(),
                "namespaces": namespaces.iter().map(|name| json!({"type": name})).collect::<Vec<_>>(),
                "resources": {"memory": {"limit": self.memory}},
            },
        });
        serde_json::from_value(spec).context("make runtime spec")
    }
}

/// `[IP:]PORT`; without an IP, the port of every address.
pub(crate) fn port(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<u16>() {
        Ok(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
        Err(_) => text.parse().ok(),
    };
    address
        .filter(|address| address.port() != 0)
        .ok_or_else(|| format!("{text:?} is not PORT or IP:PORT, such as 8080, 127.0.0.1:8080 or [::1]:8080"))
}

/// The folder of compiled code: the node's for root, one of their own for others.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    if is_privileged()? {
        return Ok(Cache::NODE.into());
    }
    let folder = |name| env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let caches = caches.context("neither XDG_CACHE_HOME nor HOME says where compiled code is to be kept; set one")?;
    Ok(caches.join("lighter"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        for (text, expected) in [("8080", "0.0.0.0:8080"), ("127.0.0.1:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80")] {
            assert_eq!(port(text).unwrap().to_string(), expected);
        }
        for text in ["", "0", "65536", "localhost:80", "127.0.0.1", "::1:80:", "127.0.0.1:0"] {
            assert!(port(text).is_err(), "{text}");
        }
    }
}
