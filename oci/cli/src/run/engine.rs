//! Where the runners are.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The engine that runs what doesn't ask for another.
pub(crate) const DEFAULT_ENGINE: &str = "wasmtime";

/// The runner of an engine: beside this executable, else on `PATH`.
pub(crate) fn runner(engine: &str) -> Result<PathBuf> {
    if engine.is_empty() || !engine.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        bail!("{engine:?} is no engine; the default is {DEFAULT_ENGINE}");
    }
    let own = env::current_exe().context("find own executable")?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        std::iter::once(folder.to_owned()).chain(env::split_paths(&path).filter(|folder| folder.is_absolute()));
    let name = format!("lighter-{engine}");
    let found = folders.map(|folder| folder.join(&name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("engine {engine} is not installed: {name} is neither in {} nor on PATH", folder.display())
    })
}
