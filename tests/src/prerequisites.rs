//! The tools of the host that the testbed uses: found, installed when that is possible, or asked for.

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

/// Something that must be there, and the Debian package that brings it.
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) package: String,
    pub(crate) found: bool,
}

impl Tool {
    /// A program on the PATH.
    pub(crate) fn program(name: &str, package: &str) -> Self {
        let on_path = |path| env::split_paths(&path).any(|folder| folder.join(name).is_file());
        Tool { name: name.into(), package: package.into(), found: env::var_os("PATH").is_some_and(on_path) }
    }

    /// A file at a fixed place.
    pub(crate) fn file(path: &Path, package: &str) -> Self {
        Tool { name: path.display().to_string(), package: package.into(), found: path.exists() }
    }
}

/// Namespaces, mounts and cgroups are root's.
pub(crate) fn need_root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the testbed needs root (namespaces, mounts, cgroups): run it with sudo");
    Ok(())
}

/// Sees to it that a program is there, by installing the Debian package that brings it.
///
/// # Errors
/// When it is missing and can't be installed.
pub fn need_program(name: &str, package: &str) -> Result<()> {
    need(&[Tool::program(name, package)])
}

/// Installs the packages of the tools that are missing.
pub(crate) fn need(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !tool.found).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(", ");
    let packages = missing.iter().map(|tool| tool.package.as_str()).collect::<Vec<_>>();
    if !Tool::program("apt-get", "apt").found || !nix::unistd::geteuid().is_root() {
        bail!("the testbed needs {names} (on Debian: apt-get install {})", packages.join(" "));
    }
    eprintln!("testbed: installing {}", packages.join(" "));
    apt_get(&["update", "-qq"])?;
    apt_get(&[&["install", "-qq", "-y", "--no-install-recommends"], &packages[..]].concat())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("run apt-get")?;
    ensure!(
        output.status.success(),
        "apt-get {} failed:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
