//! Rust by the host's own toolchain, for each of WASI's versions.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result};

use super::{Set, list, named_after, run, source};

/// Each program for WASI 0.1 and for WASI 0.2.
pub(super) static COMMANDS: Set = Set {
    name: "rust",
    sources: &["rust"],
    tools,
    install: || need_targets(&[P1, P2]),
    build: |folder| build("rust", &[P1, P2], folder),
    built: OnceLock::new(),
};

/// Components that aren't programs with a `main`: handlers, and whatever is for WASI 0.3.
pub(super) static COMPONENTS: Set = Set {
    name: "components",
    sources: &["components"],
    tools,
    install: || need_targets(&[P2]),
    build: |folder| build("components", &[P2], folder),
    built: OnceLock::new(),
};

/// Programs with wasi-threads.
pub(super) static THREADS: Set = Set {
    name: "threads",
    sources: &["threads"],
    tools,
    install: || need_targets(&[P1_THREADS]),
    build: |folder| build("threads", &[P1_THREADS], folder),
    built: OnceLock::new(),
};

/// Rust's name of WASI 0.1: core modules.
const P1: &str = "wasm32-wasip1";
/// Rust's name of WASI 0.1 with wasi-threads.
const P1_THREADS: &str = "wasm32-wasip1-threads";
/// Rust's name of WASI 0.2: components.
const P2: &str = "wasm32-wasip2";

/// The standard library is in the guests.
fn tools() -> Result<Vec<u8>> {
    let version = run(Command::new("rustc").arg("-vV"))?;
    Ok([version.as_bytes(), include_bytes!("rust.rs")].concat())
}

fn need_targets(targets: &[&str]) -> Result<()> {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib");
    if targets.iter().any(|target| !libraries.join(target).exists()) {
        run(Command::new("rustup").args(["target", "add"]).args(targets))
            .with_context(|| format!("the guests need Rust's targets {}", targets.join(" ")))?;
    }
    Ok(())
}

/// Builds a workspace of `tests/guests`: into one folder, or with several targets into a folder each.
fn build(workspace: &str, targets: &[&str], folder: &Path) -> Result<()> {
    let target_folder = folder.join("cargo");
    let mut cargo = Command::new("cargo");
    // The lock file names every dependency; the first build downloads them.
    cargo.args(["build", "--quiet", "--release", "--locked"]);
    cargo.arg("--manifest-path").arg(source(workspace).join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target_folder);
    cargo.args(targets.iter().flat_map(|target| ["--target", target]));
    // Settings for the host's programs, such as the linker, are not for these.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_RUSTFLAGS");
    run(&mut cargo)?;

    for target in targets {
        let into = if targets.len() == 1 { folder.to_owned() } else { folder.join(target) };
        fs::create_dir_all(&into).with_context(|| format!("create {}", into.display()))?;
        for module in modules(&target_folder.join(target).join("release"))? {
            let path = named_after(&module, &into)?;
            fs::rename(&module, &path).with_context(|| format!("move {}", module.display()))?;
        }
    }
    fs::remove_dir_all(&target_folder).with_context(|| format!("remove {}", target_folder.display()))
}

fn modules(built: &Path) -> Result<Vec<PathBuf>> {
    let mut files = list(built)?;
    files.retain(|path| path.extension().is_some_and(|kind| kind == "wasm"));
    Ok(files)
}
