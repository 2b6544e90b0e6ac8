//! The guests: WebAssembly built from the sources in `tests/guests`, once, and kept in the cache folder.
//!
//! Functions panic where a guest can't be had: only tests call them.

mod ruby;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    cache,
    prerequisites::{self, Tool},
};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guests");

/// Rust's names of WASI 0.1 (core modules) and WASI 0.2 (components).
const TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-wasip2"];

/// Clang's name of WASI 0.1.
const CLANG_TARGET: &str = "--target=wasm32-wasi";

/// `guests/wat/NAME.wat`: a core module for WASI 0.1, a few instructions.
#[track_caller]
pub fn wat(name: &str) -> Vec<u8> {
    read("wat", name)
}

/// `guests/rust/src/bin/NAME`, as a core module for WASI 0.1.
#[track_caller]
pub fn p1(name: &str) -> Vec<u8> {
    read(TARGETS[0], name)
}

/// `guests/rust/src/bin/NAME`, as a component for WASI 0.2.
#[track_caller]
pub fn p2(name: &str) -> Vec<u8> {
    read(TARGETS[1], name)
}

/// `guests/c/NAME.c`: a core module for WASI 0.1, of clang and wasi-libc.
#[track_caller]
pub fn c(name: &str) -> Vec<u8> {
    read("c", name)
}

/// Ruby 3.4 with its standard library, more than 30 MB: a core module for WASI 0.1 that takes `-e CODE` or a file. Not
/// built from source but downloaded from npm, once.
#[track_caller]
pub fn big() -> &'static Path {
    static RUBY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let ruby = RUBY.get_or_init(|| ruby::path().map_err(|error| format!("{error:#}")));
    ruby.as_deref().unwrap_or_else(|error| panic!("no Ruby: {error}"))
}

/// The module with a custom section of so many bytes, which no compression makes smaller: larger on every way that an
/// image goes, the same when it runs.
pub fn padded(mut module: Vec<u8>, bytes: usize) -> Vec<u8> {
    const NAME: &[u8] = b"\x07padding";
    // Section 0 is a custom one. Source: WebAssembly core spec §5.5.3; sizes are LEB128, here in five bytes.
    module.push(0);
    let size = NAME.len() + bytes;
    module.extend((0..5).map(|group| (size >> (7 * group)) as u8 & 0x7f | if group < 4 { 0x80 } else { 0 }));
    module.extend(NAME);
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    module.extend((0..bytes).map(|_| {
        // Xorshift.
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    }));
    module
}

#[track_caller]
fn read(kind: &str, name: &str) -> Vec<u8> {
    let folder = folder().unwrap_or_else(|error| panic!("no guests: {error:#}"));
    let path = folder.join(kind).join(name).with_extension("wasm");
    fs::read(&path).unwrap_or_else(|error| panic!("read guest {}: {error}", path.display()))
}

/// The folder with all of them, built when sources or compiler have changed.
///
/// # Errors
/// When a compiler is missing and can't be installed, or fails.
pub fn folder() -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let build = || cache::entry("guests", &recipe()?, build);
        build().map_err(|error| format!("{error:#}"))
    });
    folder.clone().map_err(|error| anyhow!(error))
}

/// Every source file with its name, and rustc's version, whose standard library is in the guests.
fn recipe() -> Result<Vec<u8>> {
    let mut recipe = run(Command::new("rustc").arg("-vV"))?.into_bytes();
    let mut folders = vec![PathBuf::from(SOURCES)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in list(&folder)? {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for file in files {
        recipe.extend(file.strip_prefix(SOURCES).unwrap_or(&file).as_os_str().as_encoded_bytes());
        recipe.extend(fs::read(&file).with_context(|| format!("read {}", file.display()))?);
    }
    Ok(recipe)
}

fn build(folder: &Path) -> Result<()> {
    eprintln!("testbed: building the guests (half a minute, once)");
    build_wat(&folder.join("wat"))?;
    build_rust(folder)?;
    build_c(&folder.join("c"))
}

fn build_wat(folder: &Path) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("create {}", folder.display()))?;
    for source in list(&Path::new(SOURCES).join("wat"))? {
        let module = wat::parse_file(&source).with_context(|| format!("assemble {}", source.display()))?;
        let path = named_after(&source, folder)?;
        fs::write(&path, module).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn build_rust(folder: &Path) -> Result<()> {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib");
    if TARGETS.iter().any(|target| !libraries.join(target).exists()) {
        run(Command::new("rustup").args(["target", "add"]).args(TARGETS))
            .context("the guests need Rust's targets wasm32-wasip1 and wasm32-wasip2")?;
    }
    let target_folder = folder.join("cargo");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--locked", "--offline"]);
    cargo.arg("--manifest-path").arg(Path::new(SOURCES).join("rust/Cargo.toml"));
    cargo.arg("--target-dir").arg(&target_folder);
    cargo.args(TARGETS.iter().flat_map(|target| ["--target", target]));
    // Settings for the host's programs, such as the linker, are not for these.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_RUSTFLAGS");
    run(&mut cargo)?;

    for target in TARGETS {
        let built = target_folder.join(target).join("release");
        let modules = list(&built)?.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "wasm"));
        fs::create_dir(folder.join(target)).with_context(|| format!("create the folder for {target}"))?;
        for module in modules {
            let path = named_after(&module, &folder.join(target))?;
            fs::rename(&module, &path).with_context(|| format!("move {}", module.display()))?;
        }
    }
    fs::remove_dir_all(&target_folder).with_context(|| format!("remove {}", target_folder.display()))
}

fn build_c(folder: &Path) -> Result<()> {
    prerequisites::need(&[
        Tool::program("clang", "clang"),
        Tool::program("wasm-ld", "lld"),
        Tool::file("/usr/lib/wasm32-wasi/libc.a".as_ref(), "wasi-libc"),
    ])?;
    // Its package is named after clang's version.
    let runtime = run(Command::new("clang").args([CLANG_TARGET, "-print-libgcc-file-name"]))?;
    let version = run(Command::new("clang").arg("-dumpversion"))?;
    let major = version.split('.').next().unwrap_or_default().trim();
    prerequisites::need(&[Tool::file(runtime.trim().as_ref(), &format!("libclang-rt-{major}-dev-wasm32"))])?;

    fs::create_dir(folder).with_context(|| format!("create {}", folder.display()))?;
    for source in list(&Path::new(SOURCES).join("c"))? {
        let module = named_after(&source, folder)?;
        run(Command::new("clang").args([CLANG_TARGET, "-O2", "-Wall", "-Werror", "-o"]).arg(module).arg(source))?;
    }
    Ok(())
}

/// `folder/NAME.wasm` for the source `.../NAME.xyz`.
fn named_after(source: &Path, folder: &Path) -> Result<PathBuf> {
    let name = source.file_stem().with_context(|| format!("name of {}", source.display()))?;
    Ok(folder.join(name).with_extension("wasm"))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let items = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    items.map(|item| Ok(item.with_context(|| format!("list {}", folder.display()))?.path())).collect()
}

/// Runs a tool to its end and returns what it printed.
fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
