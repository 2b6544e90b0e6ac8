//! The guests: WebAssembly built from the sources in `tests/guests`, once, and kept in the cache folder.
//!
//! One file a toolchain. Each keeps what it builds apart from the others, under a hash of its sources and its version:
//! a changed guest in Rust doesn't build those in Python anew. Functions panic where a guest can't be had: only tests
//! call them.

mod c;
mod go;
mod javascript;
mod native;
mod pip;
mod python;
mod ruby;
mod rust;
mod text;
mod zig;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{cache, checkout};

/// `guests/wat/NAME.wat`: a core module for WASI 0.1, a few instructions.
#[track_caller]
pub fn wat(name: &str) -> Vec<u8> {
    text::WAT.read(name)
}

/// `guests/rust/src/bin/NAME`, as a core module for WASI 0.1.
#[track_caller]
pub fn p1(name: &str) -> Vec<u8> {
    rust::COMMANDS.read(&format!("wasm32-wasip1/{name}"))
}

/// `guests/rust/src/bin/NAME`, as a component for WASI 0.2.
#[track_caller]
pub fn p2(name: &str) -> Vec<u8> {
    rust::COMMANDS.read(&format!("wasm32-wasip2/{name}"))
}

/// `guests/components/NAME-p3`: a component for WASI 0.3.
#[track_caller]
pub fn p3(name: &str) -> Vec<u8> {
    rust::COMPONENTS.read(&format!("{name}_p3"))
}

/// `guests/threads/src/bin/NAME`: a core module for WASI 0.1 with wasi-threads.
#[track_caller]
pub fn threads(name: &str) -> Vec<u8> {
    rust::THREADS.read(name)
}

/// `guests/c/NAME.c`: a core module for WASI 0.1, of clang and wasi-libc.
#[track_caller]
pub fn c(name: &str) -> Vec<u8> {
    c::C.read(name)
}

/// `guests/zig/NAME.zig`, or `NAME.c` by `zig cc` and Zig's own wasi-libc: a core module for WASI 0.1.
#[track_caller]
pub fn zig(name: &str) -> Vec<u8> {
    zig::ZIG.read(name)
}

/// `guests/go/NAME.go`: a core module for WASI 0.1.
#[track_caller]
pub fn go(name: &str) -> Vec<u8> {
    go::GO.read(name)
}

/// `guests/js/NAME.js`, with SpiderMonkey: a component for WASI 0.2 of more than 10 MB.
#[track_caller]
pub fn javascript(name: &str) -> Vec<u8> {
    javascript::JAVASCRIPT.read(name)
}

/// `guests/python/NAME.py`, with CPython: a component for WASI 0.2 of more than 10 MB.
#[track_caller]
pub fn python(name: &str) -> Vec<u8> {
    python::PYTHON.read(name)
}

/// A handler of `wasi:http`: `serve` (Rust, WASI 0.2), `serve-p3` (Rust, WASI 0.3), `store` (Rust, with `wasi:config` and
/// `wasi:keyvalue`), `javascript` and `python`. The sources say what they answer.
#[track_caller]
pub fn handler(name: &str) -> Vec<u8> {
    match name {
        "javascript" => javascript("serve"),
        "python" => python("serve"),
        _ => rust::COMPONENTS.read(&name.replace('-', "_")),
    }
}

/// `guests/native/NAME.c`: a static program for the host.
#[track_caller]
pub fn native(name: &str) -> Vec<u8> {
    native::NATIVE.read_file(name)
}

/// Ruby 3.4 with its standard library, more than 30 MB: a core module for WASI 0.1 that takes `-e CODE` or a file. Not
/// built from source but downloaded from npm, once.
#[track_caller]
pub fn big() -> &'static Path {
    static RUBY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let ruby = RUBY.get_or_init(|| ruby::path().map_err(|error| format!("{error:#}")));
    ruby.as_deref().unwrap_or_else(|error| panic!("no Ruby: {error}"))
}

/// The folders with all of them, built where sources or tools have changed.
///
/// # Errors
/// When a tool is missing and can't be installed, or fails.
pub fn folders() -> Result<Vec<PathBuf>> {
    let ruby = big().parent().context("folder of Ruby")?.to_owned();
    ALL.iter().map(|set| set.folder()).chain([Ok(ruby)]).collect()
}

/// The variable that holds folders of guests that were built before, for where the toolchains are not: as `PATH` holds
/// folders of programs.
pub(crate) const GIVEN: &str = "LIGHTER_GUESTS";

/// The folders with those that tests of a node's own work run.
pub(crate) fn of_a_node() -> Result<Vec<PathBuf>> {
    [&text::WAT, &rust::COMMANDS, &rust::COMPONENTS, &c::C, &native::NATIVE].iter().map(|set| set.folder()).collect()
}

static ALL: [&Set; 10] = [
    &text::WAT,
    &rust::COMMANDS,
    &rust::COMPONENTS,
    &rust::THREADS,
    &c::C,
    &native::NATIVE,
    &zig::ZIG,
    &go::GO,
    &javascript::JAVASCRIPT,
    &python::PYTHON,
];

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

/// The guests of one toolchain.
struct Set {
    /// Names the entry in the cache.
    name: &'static str,
    /// Folders beneath `tests/guests`: what is built, and what that includes.
    sources: &'static [&'static str],
    /// What else the result depends on: the toolchain's version, and how it is called.
    tools: fn() -> Result<Vec<u8>>,
    /// Makes sure that the toolchain is there. Not within `build`, for it may make an entry of the cache as well.
    install: fn() -> Result<()>,
    /// Builds `NAME.wasm` of each source into an empty folder.
    build: fn(&Path) -> Result<()>,
    built: OnceLock<Result<PathBuf, String>>,
}

impl Set {
    #[track_caller]
    fn read(&self, name: &str) -> Vec<u8> {
        self.read_file(&format!("{name}.wasm"))
    }

    #[track_caller]
    fn read_file(&self, name: &str) -> Vec<u8> {
        let folder = self.folder().unwrap_or_else(|error| panic!("no guests of {}: {error:#}", self.name));
        let path = folder.join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("read guest {}: {error}", path.display()))
    }

    fn folder(&self) -> Result<PathBuf> {
        let folder = self.built.get_or_init(|| self.make().map_err(|error| format!("{error:#}")));
        folder.clone().map_err(|error| anyhow!(error))
    }

    fn make(&self) -> Result<PathBuf> {
        let kind = format!("guests-{}", self.name);
        if let Some(given) = env::var_os(GIVEN) {
            let is_of_this = |path: &PathBuf| {
                let entry = path.file_name().and_then(|name| name.to_str());
                entry.and_then(|name| name.rsplit_once('-')).is_some_and(|(of, _)| of == kind)
            };
            return env::split_paths(&given).find(is_of_this).with_context(|| format!("{GIVEN} has no {kind}"));
        }
        (self.install)()?;
        let mut recipe = (self.tools)()?;
        for folder in self.sources {
            append_files(&source(folder), &mut recipe)?;
        }
        cache::entry(&kind, &recipe, |folder| {
            eprintln!("testbed: building the guests of {} (once)", self.name);
            (self.build)(folder)
        })
    }
}

/// `tests/guests/PATH`.
fn source(path: &str) -> PathBuf {
    checkout().join("tests/guests").join(path)
}

/// Every file in a folder of sources, and its name.
fn append_files(folder: &Path, recipe: &mut Vec<u8>) -> Result<()> {
    let mut paths = list(folder)?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            append_files(&path, recipe)?;
        } else {
            recipe.extend(path.strip_prefix(source("")).unwrap_or(&path).as_os_str().as_encoded_bytes());
            recipe.extend(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
    }
    Ok(())
}

/// The sources of `tests/guests/FOLDER` with this extension.
fn sources(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
    let mut paths = list(&source(folder))?;
    paths.retain(|path| path.extension().is_some_and(|of| of == extension));
    Ok(paths)
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
    ensure!(
        output.status.success(),
        "{program} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
