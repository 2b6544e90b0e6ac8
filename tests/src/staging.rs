//! The binaries under test, as `make install` lays them out.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::checkout;

/// The folder to appear as /usr/local: of the `DESTDIR` that `LIGHTER_DESTDIR` names, else made by
/// `make install`, once in this process, beside the program `testbed` in cargo's target folder.
pub(crate) fn usr_local(testbed: &Path) -> Result<PathBuf> {
    static DESTDIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let destdir = DESTDIR.get_or_init(|| destdir(testbed).map_err(|error| format!("{error:#}")));
    Ok(destdir.as_ref().map_err(|error| anyhow!(error.clone()))?.join("usr/local"))
}

fn destdir(testbed: &Path) -> Result<PathBuf> {
    if let Some(folder) = env::var_os("LIGHTER_DESTDIR") {
        return fs::canonicalize(&folder).with_context(|| format!("find LIGHTER_DESTDIR {}", folder.display()));
    }
    let destdir = testbed.with_file_name("testbed-destdir");
    fs::create_dir_all(&destdir).with_context(|| format!("create {}", destdir.display()))?;
    let lock = File::create(destdir.join("lock")).context("create the lock of make install")?;
    lock.lock().context("lock make install")?;
    let make = Command::new("make")
        .arg("-C")
        .arg(checkout())
        .args(["install", "PREFIX=/usr/local", &format!("DESTDIR={}", destdir.display())])
        .output()
        .context("run make")?;
    ensure!(make.status.success(), "make install failed:\n{}", String::from_utf8_lossy(&make.stderr));
    Ok(destdir)
}
