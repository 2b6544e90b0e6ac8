//! A suite's root filesystem, made once by `mmdebstrap` from Debian's packages and then only read.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

use crate::{Suite, cache, mmdebstrap, prerequisites};

/// The daemons, and what they or the tests call.
const PACKAGES: &[&str] = &[
    // Loads the profiles of containers, where the kernel has AppArmor and the testbed may.
    "apparmor",
    "busybox-static",
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    // Without it `docker build` takes the old builder, which refuses wasi/wasm.
    "docker-buildx",
    "docker-cli",
    "docker-compose",
    "docker-registry",
    "docker.io",
    // What a Kubernetes needs besides its own programs; and the client of clusters that are not ours.
    "dnsmasq-base",
    "etcd-server",
    "iproute2",
    "iptables",
    "kmod",
    "kubectl",
    "mount",
    // The certificates of the registry with TLS.
    "openssl",
    "oras",
    "procps",
    "runc",
    "skopeo",
];

/// The folder with `suite`'s root filesystem; takes a minute the first time.
pub(crate) fn get(suite: Suite) -> Result<PathBuf> {
    of_packages(suite.name(), suite, &[PACKAGES, suite.packages()].concat())
}

/// A root filesystem of `suite` with these packages, and what they depend on.
pub(crate) fn of_packages(name: &str, suite: Suite, packages: &[&str]) -> Result<PathBuf> {
    prerequisites::need_root()?;
    let mut arguments = vec!["--variant=apt".to_owned(), format!("--include={}", packages.join(","))];
    arguments.extend(suite.apt_options().iter().map(|option| format!("--aptopt={option}")));
    arguments.push(suite.name().into());
    cache::entry(name, arguments.join("\n").as_bytes(), |folder| {
        eprintln!("testbed: making the root filesystem {name} of {suite} (a minute, once)");
        let folder = folder.as_os_str().to_owned();
        mmdebstrap::run(&arguments.iter().map(OsString::from).chain([folder]).collect::<Vec<_>>(), &[])
    })
}
