//! Kernel parameters of a pod: only those that belong to a namespace of its own.
//!
//! Source: namespaces(7), the kernel's `Documentation/admin-guide/sysctl/`; runc's `configs/validate` allows the same.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::error::Error;

/// Those of an IPC namespace.
const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];
const QUEUES: &str = "fs/mqueue/";
const NETWORK: &str = "net/";
/// What containerd's CRI sets for a pod with a network of its own, unless the pod does: everybody may serve on port 80, and
/// ping. Source: its settings `enable_unprivileged_ports` and `enable_unprivileged_icmp`, which are on.
const DEFAULTS: [(&str, &str); 2] =
    [("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")];

/// A parameter's path below `/proc/sys`, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sysctl {
    path: String,
    value: String,
    /// Whether it was asked for. A kernel may lack one that was not.
    asked: bool,
}

/// What is to be set in a pod that has these namespaces of its own.
///
/// # Errors
/// One is the host's.
pub(crate) fn checked(
    asked: &BTreeMap<String, String>,
    own_network: bool,
    own_ipc: bool,
) -> Result<Vec<Sysctl>, Error> {
    let mut sysctls = Vec::new();
    for (name, value) in asked {
        let refused = |why| Error::Sysctl { name: name.clone(), why };
        let path = path_of(name).ok_or_else(|| refused("it is no name of one"))?;
        let of_ipc = IPC.contains(&path.as_str()) || path.starts_with(QUEUES);
        match () {
            () if of_ipc && !own_ipc => return Err(refused("the pod has the host's IPC namespace")),
            () if path.starts_with(NETWORK) && !own_network => return Err(refused("the pod is on the host's network")),
            () if of_ipc || path.starts_with(NETWORK) => {}
            () => return Err(refused("it is the host's, not a pod's")),
        }
        sysctls.push(Sysctl { path, value: value.clone(), asked: true });
    }
    for (path, value) in DEFAULTS.into_iter().filter(|_| own_network) {
        if !sysctls.iter().any(|sysctl| sysctl.path == path) {
            sysctls.push(Sysctl { path: path.to_owned(), value: value.to_owned(), asked: false });
        }
    }
    Ok(sysctls)
}

impl Sysctl {
    /// Sets it in the namespaces of the calling thread.
    pub(crate) fn set(&self) -> Result<(), Error> {
        match fs::write(PathBuf::from("/proc/sys").join(&self.path), &self.value) {
            Err(source) if self.asked => {
                Err(Error::SetSysctl { name: self.path.clone(), value: self.value.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Dots and slashes change places, unless it is written with slashes. Source: sysctl(8), for `net.ipv4.conf.eth0/1.x`.
fn path_of(name: &str) -> Option<String> {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let first = name.find(['.', '/'])?;
    let path: String = if name[first..].starts_with('.') { name.chars().map(swap).collect() } else { name.to_owned() };
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    plain.then_some(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(name: &str, own_network: bool, own_ipc: bool) -> Result<String, String> {
        let sysctls = checked(&BTreeMap::from([(name.to_owned(), "1".to_owned())]), own_network, own_ipc);
        sysctls.map(|sysctls| sysctls[0].path.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_the_pods_can_be_set() {
        let table = [
            ("net.ipv4.ip_forward", true, true, Ok("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.rp_filter", true, true, Ok("net/ipv4/conf/eth0.1/rp_filter")),
            ("net/ipv4/conf/eth0.1/rp_filter", true, true, Ok("net/ipv4/conf/eth0.1/rp_filter")),
            ("net.ipv4.ip_forward", false, true, Err("host's network")),
            ("kernel.shm_rmid_forced", true, true, Ok("kernel/shm_rmid_forced")),
            ("fs.mqueue.msg_max", true, true, Ok("fs/mqueue/msg_max")),
            ("kernel.shm_rmid_forced", true, false, Err("host's IPC")),
            ("fs.mqueue.msg_max", true, false, Err("host's IPC")),
            ("kernel.core_pattern", true, true, Err("it is the host's")),
            ("kernel.hostname", true, true, Err("it is the host's")),
            ("vm.swappiness", true, true, Err("it is the host's")),
            ("net", true, true, Err("no name")),
            ("", true, true, Err("no name")),
            ("net//..//../kernel/core_pattern", true, true, Err("no name")),
            ("net.//.kernel.core_pattern", true, true, Err("no name")),
            ("net/../kernel/core_pattern", true, true, Err("no name")),
            ("net..x", true, true, Err("no name")),
        ];
        for (name, own_network, own_ipc, expected) in table {
            match (check(name, own_network, own_ipc), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, expected),
                (Err(error), Err(part)) => assert!(error.contains(part), "{name}: {error}"),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn defaults_are_for_a_network_of_its_own_and_give_way() {
        let none = BTreeMap::new();
        assert_eq!(checked(&none, true, true).unwrap().len(), DEFAULTS.len());
        assert!(checked(&none, false, true).unwrap().is_empty());
        let asked = BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "1024".to_owned())]);
        let sysctls = checked(&asked, true, true).unwrap();
        assert_eq!(sysctls.len(), DEFAULTS.len());
        assert_eq!((sysctls[0].value.as_str(), sysctls[0].asked), ("1024", true));
    }
}
