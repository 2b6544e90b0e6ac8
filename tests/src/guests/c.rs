//! C by Debian's clang, with its wasi-libc.

use std::{path::Path, process::Command, sync::OnceLock};

use anyhow::Result;

use super::{Set, named_after, run, sources};
use crate::prerequisites::{self, Tool};

pub(super) static C: Set = Set {
    name: "c",
    sources: &["c"],
    tools: || Ok(include_bytes!("c.rs").to_vec()),
    install,
    build,
    built: OnceLock::new(),
};

/// Clang's name of WASI 0.1.
const TARGET: &str = "--target=wasm32-wasi";

fn install() -> Result<()> {
    prerequisites::need(&[
        Tool::program("clang", "clang"),
        Tool::program("wasm-ld", "lld"),
        Tool::file("/usr/lib/wasm32-wasi/libc.a".as_ref(), "wasi-libc"),
    ])?;
    // Its package is named after clang's version.
    let runtime = run(Command::new("clang").args([TARGET, "-print-libgcc-file-name"]))?;
    let version = run(Command::new("clang").arg("-dumpversion"))?;
    let major = version.split('.').next().unwrap_or_default().trim();
    prerequisites::need(&[Tool::file(runtime.trim().as_ref(), &format!("libclang-rt-{major}-dev-wasm32"))])
}

fn build(folder: &Path) -> Result<()> {
    for source in sources("c", "c")? {
        let module = named_after(&source, folder)?;
        run(Command::new("clang").args([TARGET, "-O2", "-Wall", "-Werror", "-o"]).arg(module).arg(source))?;
    }
    Ok(())
}
