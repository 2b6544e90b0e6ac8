//! JavaScript by componentize-js, which brings SpiderMonkey. Downloaded from npm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result};

use super::{Set, list, named_after, run, source, sources};
use crate::{
    cache,
    prerequisites::{self, Tool},
};

pub(super) static JAVASCRIPT: Set = Set {
    name: "js",
    sources: &["js", "wit"],
    tools: || Ok(include_bytes!("javascript.rs").to_vec()),
    install: || modules().map(drop),
    build,
    built: OnceLock::new(),
};

const PACKAGE: &str = "@bytecodealliance/componentize-js@0.23.0";

/// The release of WASI whose packages come with the tool, and the one that its engine is built for. They differ in
/// nothing that is used here.
const WIT_THERE: &str = "0.2.12";
const WIT_WANTED: &str = "0.2.10";

/// The folder `node_modules` with the tool, downloaded once.
fn modules() -> Result<PathBuf> {
    prerequisites::need(&[Tool::program("npm", "npm")])?;
    let folder = cache::entry("componentize-js", PACKAGE.as_bytes(), |folder| {
        eprintln!("testbed: downloading {PACKAGE} from npm (400 MB, once)");
        let npm = ["install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix"];
        run(Command::new("npm").args(npm).arg(folder).arg(PACKAGE)).map(drop)
    })?;
    Ok(folder.join("node_modules/@bytecodealliance"))
}

/// Makes `folder` a folder of WIT: the worlds of `tests/guests/wit`, and WASI's packages.
pub(super) fn wit(folder: &Path) -> Result<()> {
    let world = "world.wit";
    fs::create_dir_all(folder.join("deps")).with_context(|| format!("create {}", folder.display()))?;
    fs::copy(source("wit").join(world), folder.join(world)).context("copy the worlds")?;
    for package in list(&modules()?.join("jco/lib/wit/builtin").join(WIT_THERE))? {
        let path = package.join("package.wit");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = package.file_name().with_context(|| format!("name of {}", package.display()))?;
        let copy = folder.join("deps").join(name).with_extension("wit");
        fs::write(&copy, text.replace(WIT_THERE, WIT_WANTED)).with_context(|| format!("write {}", copy.display()))?;
    }
    Ok(())
}

fn build(folder: &Path) -> Result<()> {
    let tool = modules()?.join("componentize-js/src/cli.js");
    let temporary = tempfile::tempdir()?;
    wit(temporary.path())?;
    for source in sources("js", "js")? {
        let mut command = Command::new("node");
        command.arg(&tool).arg(&source).arg("--wit").arg(temporary.path()).arg("--out");
        command.arg(named_after(&source, folder)?).arg("--world-name");
        let is_handler = source.file_stem().is_some_and(|name| name == "serve");
        // A command must not ask for what only handlers are given.
        let world: &[&str] = if is_handler { &["handler"] } else { &["command", "--disable", "http", "fetch-event"] };
        run(command.args(world))?;
    }
    Ok(())
}
