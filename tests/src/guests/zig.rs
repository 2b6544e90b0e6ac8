//! Zig, and C by `zig cc`, which has a wasi-libc of its own. Zig is downloaded from PyPI.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::Result;

use super::{Set, named_after, pip, run, sources};

pub(super) static ZIG: Set = Set {
    name: "zig",
    sources: &["zig"],
    tools: || Ok(include_bytes!("zig.rs").to_vec()),
    install: || zig().map(drop),
    build,
    built: OnceLock::new(),
};

const PACKAGE: &str = "ziglang==0.17.1";

fn zig() -> Result<PathBuf> {
    Ok(pip::package(PACKAGE)?.join("ziglang/zig"))
}

fn build(folder: &Path) -> Result<()> {
    let zig = zig()?;
    let cache = tempfile::tempdir()?;
    let command = |subcommand: &[&str]| {
        let mut command = Command::new(&zig);
        command.args(subcommand).args(["-target", "wasm32-wasi"]).current_dir(cache.path());
        command.env("ZIG_GLOBAL_CACHE_DIR", cache.path()).env("ZIG_LOCAL_CACHE_DIR", cache.path());
        command
    };
    for source in sources("zig", "zig")? {
        let mut module = std::ffi::OsString::from("-femit-bin=");
        module.push(named_after(&source, folder)?);
        run(command(&["build-exe", "-O", "ReleaseSmall"]).arg(&source).arg(module))?;
    }
    for source in sources("zig", "c")? {
        let mut cc = command(&["cc", "-O2", "-Wall", "-Werror"]);
        run(cc.arg(&source).arg("-o").arg(named_after(&source, folder)?))?;
    }
    Ok(())
}
