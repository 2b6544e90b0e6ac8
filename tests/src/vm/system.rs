//! The root filesystem of the machine, and the programs that make the machine: from Debian's packages, in one folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{Suite, rootfs};

/// The suite whose kernel, systemd and QEMU these are.
const SUITE: Suite = Suite::Trixie;

const PACKAGES: &[&str] = &[
    "apparmor",
    "dbus",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "procps",
    "qemu-system-x86",
    "systemd-sysv",
    "udev",
    "virtiofsd",
];

/// Root filesystem of the machine, in a folder that is only read.
pub(super) struct System(PathBuf);

impl System {
    /// Takes a minute the first time.
    pub(super) fn get() -> Result<System> {
        ensure!(cfg!(target_arch = "x86_64"), "the virtual machine is for x86_64 only");
        Ok(System(rootfs::of_packages("vm", SUITE, PACKAGES)?))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// A program of this folder, for the host, with the libraries that belong to it: the host may have no QEMU, or one
    /// that crashes.
    ///
    /// It is killed with the thread that starts it.
    pub(super) fn program(&self, path: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.0.join("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.0.join("usr/lib/x86_64-linux-gnu")).arg(self.0.join(path));
        command
    }
}
