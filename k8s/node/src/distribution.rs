//! Which Kubernetes a node has: where its containerd is configured, listens, and how it is restarted.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, Host, config::Document, config::pattern_folder};

/// Who brought the node's containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// A package or the clouds' images: kubeadm, EKS, AKS, GKE.
    Containerd,
    /// Nodes that are containers.
    Kind,
    /// Renders its configuration from a template.
    K3s,
    /// As k3s.
    Rke2,
    /// Merges drop-ins of its own.
    K0s,
    /// A snap that fills in a template.
    MicroK8s,
}

impl Distribution {
    /// All of them, the ones that others are built on last.
    pub const ALL: [Self; 6] = [Self::K3s, Self::Rke2, Self::K0s, Self::MicroK8s, Self::Kind, Self::Containerd];

    /// As the command line and the reports name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kind => "kind",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::K0s => "k0s",
            Self::MicroK8s => "microk8s",
        }
    }

    /// A path that there is on nodes of this distribution only.
    fn trace(self) -> &'static str {
        match self {
            Self::Containerd => "/etc/containerd",
            Self::Kind => "/kind",
            Self::K3s => "/var/lib/rancher/k3s/agent/etc/containerd",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/etc/containerd",
            Self::K0s => "/etc/k0s/containerd.toml",
            Self::MicroK8s => "/var/snap/microk8s/current/args/containerd-template.toml",
        }
    }

    /// The one that a host has. A packaged containerd beside another distribution is Docker's.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn detect(host: &Host) -> Result<Self, Error> {
        let found: Vec<_> = Self::ALL.into_iter().filter(|distribution| host.exists(distribution.trace())).collect();
        match found.as_slice() {
            [only] => Ok(*only),
            [special, Self::Containerd] => Ok(*special),
            [] => {
                let socket = Layout::of(Self::Containerd).socket;
                if host.exists(socket) { Ok(Self::Containerd) } else { Err(Error::NoContainerd) }
            }
            several => {
                let names: Vec<_> = several.iter().map(|distribution| distribution.name()).collect();
                Err(Error::Ambiguous(names.join(", ")))
            }
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a distribution keeps things. Paths of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whose they are.
    pub distribution: Distribution,
    /// What containerd reads.
    pub config: PathBuf,
    /// containerd's gRPC socket.
    pub socket: PathBuf,
    /// Where its program may be, besides `PATH`.
    pub programs: &'static [&'static str],
    /// Units of systemd's, of which one restarts it.
    pub units: &'static [&'static str],
}

impl Layout {
    /// Source: each distribution's documentation on containerd; for k3s its `pkg/agent/templates`, for k0s its
    /// `pkg/component/worker/containerd`, for MicroK8s its `default-args`.
    #[must_use]
    pub fn of(distribution: Distribution) -> Self {
        let (config, socket, programs, units): (_, _, &[&str], &[&str]) = match distribution {
            Distribution::Containerd | Distribution::Kind => {
                ("/etc/containerd/config.toml", "/run/containerd/containerd.sock", &[], &["containerd.service"])
            }
            Distribution::K3s => (
                "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
                "/run/k3s/containerd/containerd.sock",
                &["/var/lib/rancher/k3s/data/current/bin/containerd"],
                &["k3s.service", "k3s-agent.service"],
            ),
            Distribution::Rke2 => (
                "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
                "/run/k3s/containerd/containerd.sock",
                &["/var/lib/rancher/rke2/bin/containerd"],
                &["rke2-server.service", "rke2-agent.service"],
            ),
            Distribution::K0s => (
                "/etc/k0s/containerd.toml",
                "/run/k0s/containerd.sock",
                &["/var/lib/k0s/bin/containerd"],
                &["k0sworker.service", "k0scontroller.service"],
            ),
            Distribution::MicroK8s => (
                "/var/snap/microk8s/current/args/containerd-template.toml",
                "/var/snap/microk8s/common/run/containerd.sock",
                &["/snap/microk8s/current/bin/containerd"],
                &["snap.microk8s.daemon-containerd.service"],
            ),
        };
        Self { distribution, config: config.into(), socket: socket.into(), programs, units }
    }

    /// The folder of its configuration.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new("/"))
    }
}

/// Where our tables go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file of our own, in a folder that is imported anyway.
    DropIn(PathBuf),
    /// A file of our own, and a line in the main file that imports it.
    Import {
        /// Ours.
        own: PathBuf,
        /// containerd's.
        main: PathBuf,
    },
    /// The main file itself.
    Main(PathBuf),
    /// The template from which the main file is made at each start.
    Template(PathBuf),
}

impl Place {
    /// The best there is for this containerd. `main` is its configuration, if there is a file.
    #[must_use]
    pub fn choose(layout: &Layout, version: (u32, u32), main: Option<&Document>) -> Self {
        const OWN: &str = "lighter.toml";
        let imports = main.and_then(Document::imports);
        let imported = || imports.iter().flatten().find_map(|import| pattern_folder(import)).map(|f| f.join(OWN));
        let merges = crate::config::merges_imports(version);
        match layout.distribution {
            // It merges what it finds itself, whatever containerd does. Source: k0s, "Using custom CRI runtimes".
            Distribution::K0s => Self::DropIn(layout.folder().join("containerd.d").join(OWN)),
            Distribution::K3s | Distribution::Rke2 => match imported().filter(|_| merges) {
                Some(file) => Self::DropIn(file),
                None if main.is_some_and(|main| main.version() >= 3) => {
                    Self::Template(layout.folder().join("config-v3.toml.tmpl"))
                }
                None => Self::Template(layout.folder().join("config.toml.tmpl")),
            },
            Distribution::MicroK8s => Self::Main(layout.config.clone()),
            Distribution::Containerd | Distribution::Kind => match imported() {
                // Since 2.2 `containerd config default` imports conf.d. A file that doesn't say so has nothing from
                // there: only what a file says itself is followed. Source: containerd, `LoadConfigWithPlugins`.
                Some(file) if merges => Self::DropIn(file),
                _ if merges && main.is_some() => {
                    Self::Import { own: layout.folder().join(OWN), main: layout.config.clone() }
                }
                _ => Self::Main(layout.config.clone()),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    fn host(paths: &[&str]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let host = Host::new(folder.path());
        (folder, host)
    }

    #[test]
    fn each_is_known_by_its_files() {
        for distribution in Distribution::ALL {
            let config = Layout::of(distribution).config;
            let (_folder, host) = host(&[config.to_str().unwrap(), &format!("{}/x", distribution.trace())][..1]);
            let kind = [Distribution::Kind];
            if !kind.contains(&distribution) {
                assert_eq!(Distribution::detect(&host).unwrap(), distribution);
            }
        }
        let table: [(&[&str], Result<Distribution, &str>); 5] = [
            (&["/etc/containerd/config.toml", "/kind/version"], Ok(Distribution::Kind)),
            (
                &["/etc/containerd/config.toml", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"],
                Ok(Distribution::K3s),
            ),
            (&["/run/containerd/containerd.sock"], Ok(Distribution::Containerd)),
            (&[], Err("no containerd is known here")),
            (
                &["/etc/k0s/containerd.toml", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"],
                Err("more than one Kubernetes here: rke2, k0s;"),
            ),
        ];
        for (paths, expected) in table {
            let (_folder, host) = host(paths);
            match (Distribution::detect(&host), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{paths:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{paths:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_place_is_the_least_intrusive_that_loses_nothing() {
        use Distribution::{Containerd, K0s, K3s, Kind, MicroK8s, Rke2};
        let etc = "/etc/containerd";
        let drop_in = |path: &str| Place::DropIn(path.into());
        let k3s = "/var/lib/rancher/k3s/agent/etc/containerd";
        let k3s_imports = format!("version = 3\nimports = [\"{k3s}/config-v3.toml.d/*.toml\"]");
        let k3s_old_imports = format!("version = 2\nimports = [\"{k3s}/config.toml.d/*.toml\"]");
        let import =
            Place::Import { own: "/etc/containerd/lighter.toml".into(), main: "/etc/containerd/config.toml".into() };
        let main = Place::Main("/etc/containerd/config.toml".into());
        let table: Vec<(_, _, Option<&str>, _)> = vec![
            (Containerd, (1, 7), Some("version = 2"), main.clone()),
            (Containerd, (1, 7), Some("version = 2\nimports = ['/etc/containerd/conf.d/*.toml']"), main.clone()),
            (Containerd, (1, 7), None, main.clone()),
            (Containerd, (2, 0), Some("version = 3"), import.clone()),
            (Containerd, (2, 1), Some("version = 2"), import.clone()),
            (Containerd, (2, 1), None, main.clone()),
            (Kind, (2, 1), Some("version = 3\nimports = ['/x.toml']"), import.clone()),
            (
                Containerd,
                (2, 1),
                Some("version = 3\nimports = ['/etc/containerd/config.d/*.toml']"),
                drop_in(&format!("{etc}/config.d/lighter.toml")),
            ),
            (
                Containerd,
                (2, 2),
                Some("version = 3\nimports = ['/etc/containerd/conf.d/*.toml']"),
                drop_in(&format!("{etc}/conf.d/lighter.toml")),
            ),
            (Containerd, (2, 2), Some("version = 3"), import.clone()),
            (Containerd, (2, 3), None, main),
            (Kind, (2, 3), Some("version = 4"), import.clone()),
            (Containerd, (2, 2), Some("version = 3\nimports = ['/x.toml']"), import),
            (K3s, (1, 7), Some("version = 2"), Place::Template(format!("{k3s}/config.toml.tmpl").into())),
            (K3s, (1, 7), Some(&k3s_old_imports), Place::Template(format!("{k3s}/config.toml.tmpl").into())),
            (K3s, (2, 0), Some("version = 3"), Place::Template(format!("{k3s}/config-v3.toml.tmpl").into())),
            (K3s, (2, 1), Some(&k3s_imports), drop_in(&format!("{k3s}/config-v3.toml.d/lighter.toml"))),
            (
                Rke2,
                (1, 7),
                Some("version = 2"),
                Place::Template("/var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl".into()),
            ),
            (K0s, (1, 7), Some("version = 2"), drop_in("/etc/k0s/containerd.d/lighter.toml")),
            (
                MicroK8s,
                (1, 7),
                Some("version = 2"),
                Place::Main("/var/snap/microk8s/current/args/containerd-template.toml".into()),
            ),
        ];
        for (distribution, version, main, expected) in table {
            let layout = Layout::of(distribution);
            let document = main.map(|text| Document::parse(&layout.config, text).unwrap());
            assert_eq!(
                Place::choose(&layout, version, document.as_ref()),
                expected,
                "{distribution} {version:?} {main:?}"
            );
        }
    }
}
