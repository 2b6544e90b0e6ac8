//! A virtual machine for what this one may not have: cgroup v2, managed by systemd, and AppArmor. Nearly every node has
//! them.
//!
//! It is Debian's kernel and systemd under QEMU without hardware virtualisation, which few machines of CI offer: ten
//! times slower, and the same everywhere. Its root is a folder of the host's, shared by virtiofs, with a layer in
//! memory on top; programs, guests and root filesystems are seen at the paths that they have on the host, read-only. It
//! has no network and no disk. Nothing of it outlives the process that [`run`]s it.

mod inside;
mod job;
mod lane;
mod machine;
mod system;

use std::{env, path::Path, time::Duration};

pub use inside::inside;
pub use job::{Job, Step};
pub use lane::{lane, prepared};
pub use machine::run;

/// There while a job runs, and in no other machine.
const MARK: &str = "/run/lighter-vm";

/// Who makes the cgroups of a bed's containers: `systemd`, or the runtimes themselves.
const DRIVER: &str = "LIGHTER_CGROUP_DRIVER";

/// How much longer anything may take there.
const SLOWER: u32 = 4;

/// How long to wait for what elsewhere comes within `usual`.
#[must_use]
pub fn patience(usual: Duration) -> Duration {
    if is_inside() { usual * SLOWER } else { usual }
}

/// Whether this process runs in it: what belongs to the whole kernel is the tests' own.
pub(crate) fn is_inside() -> bool {
    Path::new(MARK).exists()
}

/// Whether beds are to use the machine's systemd. It takes processes by their numbers in its own namespace, and cgroups
/// by their names in its own tree: such a bed has neither for itself, hence is for a machine that goes with it.
#[must_use]
pub fn has_systemds_cgroups() -> bool {
    is_inside() && env::var_os(DRIVER).is_some_and(|driver| driver == "systemd")
}
