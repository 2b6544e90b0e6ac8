//! Tools that are published on PyPI, each in a folder of its own in the cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{list, run};
use crate::{
    cache,
    prerequisites::{self, Tool},
};

/// The folder `site-packages` that holds `package`, a name with its version: `ziglang==0.17.1`. Downloaded once.
pub(super) fn package(package: &str) -> Result<PathBuf> {
    let name = package.split("==").next().unwrap_or(package);
    prerequisites::need(&[Tool::program("python3", "python3"), venv()])?;
    let folder = cache::entry(name, package.as_bytes(), |folder| {
        eprintln!("testbed: downloading {package} from PyPI (once)");
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", package];
        run(Command::new(folder.join("bin/python3")).args(pip)).map(drop)
    })?;
    site_packages(&folder)
}

/// Debian has it in a package of its own, all but a stub.
fn venv() -> Tool {
    let found = Command::new("python3").args(["-c", "import ensurepip"]).output();
    Tool {
        name: "Python's module venv".to_owned(),
        package: "python3-venv".to_owned(),
        found: found.is_ok_and(|output| output.status.success()),
    }
}

/// `lib/python3.x/site-packages`.
fn site_packages(folder: &Path) -> Result<PathBuf> {
    let version = list(&folder.join("lib"))?.pop().with_context(|| format!("no Python in {}", folder.display()))?;
    Ok(version.join("site-packages"))
}
