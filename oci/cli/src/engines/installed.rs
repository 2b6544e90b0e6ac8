//! Where the runners are, and which of them can be started.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use lighter_oci::{Choice, listed};
use serde::Serialize;

use super::{ENGINES, NATIVE, about};

/// An engine whose runner is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Installed {
    pub(crate) name: String,
    pub(crate) runner: PathBuf,
    /// Its own version; none where it can't be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// What it runs: `modules`, `components`, `native programs`.
    pub(crate) runs: Vec<&'static str>,
    /// The program that compiles for it; none of an interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compiler: Option<String>,
    /// Who made it the one that runs what doesn't ask for another; none where another is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_by: Option<String>,
    /// Why it can't be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// Asks every runner that is there. `default` is the engine that runs what doesn't ask for another, where that is known.
pub(crate) async fn installed(default: Option<&Choice>) -> Vec<Installed> {
    let mut engines = Vec::new();
    for name in ENGINES.iter().chain([&NATIVE]) {
        let Some(runner) = runner(name) else { continue };
        let mut engine = Installed {
            name: (*name).to_owned(),
            version: None,
            runs: Vec::new(),
            compiler: None,
            default_by: default.filter(|default| default.engine == *name).map(|default| default.by.to_string()),
            problem: None,
            runner,
        };
        match about(&engine.runner).await {
            Ok(Some(about)) => {
                engine.version = Some(about.version);
                engine.compiler = about.compiler;
                engine.runs = match (*name == NATIVE, about.supports.components) {
                    (true, _) => vec!["native programs"],
                    (false, false) => vec!["modules"],
                    (false, true) => vec!["modules", "components"],
                };
            }
            // It went between two looks.
            Ok(None) => continue,
            Err(error) => engine.problem = Some(format!("{error:#}")),
        }
        engines.push(engine);
    }
    engines
}

/// The runner of an engine: beside this executable, else on `PATH`.
pub(crate) fn runner(engine: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    let others: Vec<_> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    let mut files = folder.into_iter().chain(others).map(|folder| folder.join(format!("lighter-{engine}")));
    files.find(|path| path.is_file())
}

/// The runner of an engine that somebody chose.
///
/// # Errors
/// It is not installed; the message names those that are.
pub(crate) fn chosen(engine: &str) -> Result<PathBuf> {
    runner(engine).with_context(|| {
        let others: Vec<_> = ENGINES.iter().copied().filter(|name| runner(name).is_some()).collect();
        let others = listed(&others, "and");
        format!("engine {engine} is not installed: lighter-{engine} is neither beside lighter nor on PATH; installed are {others}")
    })
}
