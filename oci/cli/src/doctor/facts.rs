//! What is known of the machine. Nothing in here judges.

use std::path::PathBuf;

use lighter_oci::Choice;

use super::version::Version;
use crate::engines::Installed;

/// Everything that the checks look at.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(super) programs: Programs,
    pub(super) engines: Engines,
    /// The running ones; where none runs, the installed one.
    pub(super) containerds: Vec<Containerd>,
    pub(super) docker: Option<Docker>,
    /// Whether something like a kubelet is here.
    pub(super) kubernetes: bool,
    /// Where k3s or rke2 render containerd's configuration.
    pub(super) rancher: Option<PathBuf>,
    /// containerd's configuration, the main file first.
    pub(super) configs: Vec<ConfigFile>,
    /// The shims that its handlers lead to by path, links resolved; only those that can be executed.
    pub(super) shims: Vec<PathBuf>,
    /// Paths of our names that its handlers lead to, where there is no program.
    pub(super) dead: Vec<PathBuf>,
    pub(super) host: Host,
    pub(super) cache: Cache,
}

/// Lighter's own programs.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// The folder of this executable.
    pub(super) folder: PathBuf,
    /// Version and commit of this executable, such as `0.1.0 (8c980db2444b)`.
    pub(super) version: String,
    pub(super) found: Vec<Program>,
}

#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// What it is for, as a message says it.
    pub(super) purpose: &'static str,
    pub(super) there: bool,
    /// As [`Programs::version`]; none where it doesn't say.
    pub(super) version: Option<String>,
}

/// What runs guests.
#[derive(Debug)]
pub(super) struct Engines {
    /// The one that runs what doesn't ask for another, or what is wrong with the configuration that names it.
    pub(super) default: Result<Choice, String>,
    pub(super) installed: Vec<Installed>,
}

impl Default for Engines {
    fn default() -> Self {
        Self { default: Err("not looked at".to_owned()), installed: Vec::new() }
    }
}

/// A containerd.
#[derive(Debug)]
pub(super) struct Containerd {
    pub(super) executable: PathBuf,
    pub(super) version: Option<Version>,
    /// None where it isn't running.
    pub(super) pid: Option<u32>,
    /// Whether `folders` is from its environment; else it is what systemd gives by default.
    pub(super) path_known: bool,
    /// Where it looks for shims.
    pub(super) folders: Vec<PathBuf>,
    /// The shim that it finds, links resolved.
    pub(super) shim: Option<PathBuf>,
}

/// Docker's daemon.
#[derive(Debug)]
pub(super) struct Docker {
    pub(super) version: Option<Version>,
    /// `/etc/docker/daemon.json`, or why it can't be read; none where there is none.
    pub(super) config: Option<Result<serde_json::Value, String>>,
    /// Whether it keeps images in containerd, as it says itself; none where it doesn't answer.
    pub(super) containerd_store: Option<bool>,
}

/// A file of containerd's configuration.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    /// Or why it can't be read.
    pub(super) content: Result<toml::Table, String>,
}

/// The kernel and how it was set up.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) kernel: Option<Version>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) systemd: bool,
    /// As in `/proc/filesystems`.
    pub(super) overlay: bool,
    pub(super) seccomp: bool,
    /// What forbids user namespaces to all but root.
    pub(super) user_namespaces: Option<UserNamespaces>,
    pub(super) apparmor: bool,
    pub(super) selinux: Selinux,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cgroup {
    /// The controllers of each hierarchy.
    V1(Vec<String>),
    /// v1 for limits, and a v2 hierarchy that has none.
    Hybrid(Vec<String>),
    /// The controllers of the root.
    V2(Vec<String>),
}

/// What forbids user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserNamespaces {
    /// `user.max_user_namespaces` is 0.
    Limit,
    /// Debian's `kernel.unprivileged_userns_clone`.
    Sysctl,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`.
    AppArmor,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Selinux {
    #[default]
    Absent,
    Permissive,
    Enforcing,
}

/// The folder of compiled code.
#[derive(Debug, Default)]
pub(super) struct Cache {
    pub(super) path: PathBuf,
    pub(super) folder: CacheFolder,
    /// Bytes, on the disk that it is or will be on.
    pub(super) free: Option<u64>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum CacheFolder {
    #[default]
    Absent,
    Unreadable(String),
    NotAFolder,
    Folder {
        uid: u32,
        mode: u32,
    },
}
