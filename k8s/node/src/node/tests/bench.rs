//! Nodes laid out like the distributions', each with two builds to install.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{block, fake::Fake};
use crate::{
    Error, Host, Node, Report,
    distribution::{Distribution, Layout},
    host::Content,
    programs::Prefix,
};

/// A node to be: its files, and who starts what.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) version: (u32, u32),
    pub(super) distribution: Distribution,
    pub(super) files: Vec<(String, String)>,
    /// What an installation writes.
    pub(super) written: &'static [&'static str],
}

/// Configurations that a node may have had before, of two versions.
pub(super) const V2: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "mine" # as is
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#;
pub(super) const V3: &str = r#"version = 3
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = true
"#;

pub(super) fn cases() -> Vec<Case> {
    let etc = |text: &str| vec![("/etc/containerd/config.toml".to_owned(), text.to_owned())];
    let rendered = |folder: &str, text: &str, more: &[(&str, &str)]| {
        let file = |name: &str, text: &str| (format!("{folder}/{name}"), text.to_owned());
        let mut files = vec![file("config.toml", text), file("config.base", text)];
        files.extend(more.iter().map(|(name, text)| file(name, text)));
        files
    };
    let k3s = "/var/lib/rancher/k3s/agent/etc/containerd";
    let rke2 = "/var/lib/rancher/rke2/agent/etc/containerd";
    let case = |name, version, distribution, files, written| Case { name, version, distribution, files, written };
    use Distribution::{Containerd, K0s, K3s, Kind, MicroK8s, Rke2};
    let imports = format!("imports = [\"{k3s}/config-v3.toml.d/*.toml\"]\n{V3}");
    vec![
        case("containerd 1.7", (1, 7), Containerd, etc(V2), &["/etc/containerd/config.toml"]),
        case(
            "containerd 2.0",
            (2, 0),
            Containerd,
            etc(V3),
            &["/etc/containerd/lighter.toml", "/etc/containerd/config.toml"],
        ),
        case(
            "containerd 2.1",
            (2, 1),
            Containerd,
            etc(V3),
            &["/etc/containerd/lighter.toml", "/etc/containerd/config.toml"],
        ),
        case(
            "containerd 2.1 with an old file",
            (2, 1),
            Containerd,
            etc(V2),
            &["/etc/containerd/lighter.toml", "/etc/containerd/config.toml"],
        ),
        case(
            "containerd 2.2",
            (2, 2),
            Containerd,
            etc(V3),
            &["/etc/containerd/lighter.toml", "/etc/containerd/config.toml"],
        ),
        case(
            "containerd 2.2 with its default file",
            (2, 2),
            Containerd,
            etc(&format!("imports = ['/etc/containerd/conf.d/*.toml']\n{V3}")),
            &["/etc/containerd/conf.d/lighter.toml"],
        ),
        case(
            "containerd 2.3",
            (2, 3),
            Containerd,
            etc(&V3.replace("version = 3", "version = 4")),
            &["/etc/containerd/lighter.toml", "/etc/containerd/config.toml"],
        ),
        case(
            "kind",
            (2, 1),
            Kind,
            [etc(V3), vec![("/kind/version".into(), "v1".into())]].concat(),
            &["/etc/containerd/lighter.toml", "/etc/containerd/config.toml"],
        ),
        case(
            "k3s on 1.7",
            (1, 7),
            K3s,
            rendered(k3s, V2, &[]),
            &["/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl"],
        ),
        case(
            "k3s on 2.0 with a template",
            (2, 0),
            K3s,
            rendered(k3s, V3, &[("config-v3.toml.tmpl", "{{ template \"base\" . }}\n[debug]\nlevel = \"info\"\n")]),
            &["/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl"],
        ),
        case(
            "k3s on 2.1",
            (2, 1),
            K3s,
            rendered(k3s, &imports, &[]),
            &["/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/lighter.toml"],
        ),
        case(
            "rke2",
            (1, 7),
            Rke2,
            rendered(rke2, V2, &[]),
            &["/var/lib/rancher/rke2/agent/etc/containerd/config.toml.tmpl"],
        ),
        case(
            "k0s",
            (1, 7),
            K0s,
            vec![("/etc/k0s/containerd.toml".into(), V2.into())],
            &["/etc/k0s/containerd.d/lighter.toml"],
        ),
        case(
            "microk8s",
            (1, 7),
            MicroK8s,
            vec![("/var/snap/microk8s/current/args/containerd-template.toml".into(), V2.replace("mine", "${SNAP}/x"))],
            &["/var/snap/microk8s/current/args/containerd-template.toml"],
        ),
    ]
}

/// As somebody else writes a file.
pub(super) fn put(host: &Host, path: &Path, text: &str) {
    host.make_folder(path.parent().unwrap()).unwrap();
    host.write(path, &Content::new(text)).unwrap();
}

/// A node of a case, with two builds to install.
pub(super) struct Bench {
    pub(super) root: tempfile::TempDir,
    pub(super) builds: [tempfile::TempDir; 2],
    pub(super) case: Case,
    pub(super) fake: Fake,
}

impl Bench {
    pub(super) fn new(case: Case) -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        fs::create_dir(root.path().join("opt")).unwrap();
        for (path, text) in &case.files {
            put(&host, Path::new(path), text);
        }
        assert_eq!(Distribution::detect(&host).unwrap(), case.distribution, "{}", case.name);
        let builds = ["a", "b"].map(|build| {
            let folder = tempfile::tempdir().unwrap();
            for name in [
                "containerd-shim-lighter-v1",
                "lighter-wasmtime",
                "lighter-compile",
                "lighter-native",
                "lighter-fetch",
                "lighter-wamr",
                "lighter-wasmedge",
            ] {
                fs::write(folder.path().join(name), format!("{name} {build}")).unwrap();
            }
            folder
        });
        let layout = Layout::of(case.distribution);
        let fake = Fake {
            host,
            layout,
            version: case.version,
            known: RefCell::default(),
            restarts: Cell::default(),
            // Its library is missing.
            fails: RefCell::new(vec!["lighter-wasmedge".to_owned()]),
            says: RefCell::new("exec format error".to_owned()),
            replaces: Cell::default(),
            stubborn: Cell::default(),
            pods: RefCell::default(),
        };
        fake.known.replace(fake.runtimes());
        Self { root, builds, case, fake }
    }

    pub(super) fn of(name: &str) -> Self {
        Self::new(cases().into_iter().find(|case| case.name == name).unwrap())
    }

    pub(super) fn node<'a>(&'a self, step: &'a dyn Fn(&str)) -> Node<'a, &'a Fake> {
        let (host, layout) = (self.fake.host.clone(), self.fake.layout.clone());
        Node { host, layout, daemon: &self.fake, prefix: Prefix("/opt/lighter".into()), step }
    }

    pub(super) fn install(&self, build: usize) -> Result<Report, Error> {
        block(self.node(&|_| {}).install(self.builds[build].path(), "lighter"))
    }

    pub(super) fn uninstall(&self) -> Result<Report, Error> {
        block(self.node(&|_| {}).uninstall(false))
    }

    pub(super) fn status(&self) -> Report {
        block(self.node(&|_| {}).status()).unwrap()
    }

    /// Every file with its bytes, every folder and link. What is rendered is left out: it is not ours.
    pub(super) fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let what = if path.is_symlink() {
                    format!("-> {}", fs::read_link(&path).unwrap().display())
                } else if path.is_dir() {
                    folders.push(path.clone());
                    "folder".to_owned()
                } else {
                    fs::read_to_string(&path).unwrap()
                };
                let path = path.strip_prefix(self.root.path()).unwrap().to_owned();
                // Rendered at the next start; holds the time.
                if !path.ends_with("agent/etc/containerd/config.toml") && !path.ends_with("state/journal.json") {
                    tree.insert(path, what);
                }
            }
        }
        tree
    }
}
