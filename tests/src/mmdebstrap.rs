//! `mmdebstrap`, the maker of root filesystems, with what it mounts and starts ending together with it.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::prerequisites::{self, Tool};

/// Runs it with these arguments; `environment` is for its hooks.
///
/// It has /proc and /dev mounted while it works. In namespaces of its own, which end when whoever asked for it is killed, a later
/// run doesn't find them in the cache folder.
///
/// # Errors
/// When it isn't there, or fails: then with all that it has printed.
pub(crate) fn run(arguments: &[impl AsRef<OsStr>], environment: &[(&str, &OsStr)]) -> Result<()> {
    prerequisites::need(&[
        Tool::program("mmdebstrap", "mmdebstrap"),
        Tool::file(Path::new("/usr/share/keyrings/debian-archive-keyring.gpg"), "debian-archive-keyring"),
    ])?;
    // No mirror given: it knows the release's, and the host's apt settings (proxies) apply.
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg("mmdebstrap")
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .context("run mmdebstrap")?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mmdebstrap failed ({}):\n{printed}", output.status);
    Ok(())
}
