//! Compiles one WebAssembly module: bytes on standard input, a shared object on standard output.
//!
//! Hostile input meets a large program here, so the process bounds and seals itself before it reads the first byte: it
//! can compute, read what it was given, write what it makes, and keep files in an empty folder of its own, which the
//! linker inside WasmEdge takes. A failure is one line on standard error and exit code 1.

use std::{
    fs::File,
    io::{self, Read},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use lighter_oci::{Kind, Tier};
use lighter_runner::compiler::{self, About};
use lighter_wasmedge::{engine, sections};
use wasmedge_sdk::CompilerOptimizationLevel;
use wasmedge_sys::Compiler;

/// Bytes of the files that it may keep.
const SCRATCH: u64 = 1 << 30;
/// Where the code is written before it is read back.
const CODE: &str = "/code.so";

const HELP: &str = "\
Compiles WebAssembly for lighter-wasmedge. The runner starts it on a cache miss; by hand, as root:

  lighter-compile-wasmedge < guest.wasm > guest.so               optimised code
  lighter-compile-wasmedge --baseline < guest.wasm > guest.so    code that is made faster and runs slower

It reads a module, seals itself, and takes at most 6 GiB of address space, 1 GiB of files and, by its size, 900 s of CPU time.";

fn main() -> ExitCode {
    let engine = format!("wasmedge {}", engine::version());
    compiler::main(About { name: "lighter-compile-wasmedge", engine: &engine, help: HELP }, compile)
}

fn compile(tier: Tier) -> Result<()> {
    engine::start()?;
    let level = match tier {
        Tier::Optimised => CompilerOptimizationLevel::O2,
        Tier::Baseline => CompilerOptimizationLevel::O0,
    };
    let compiler =
        Compiler::create(Some(&engine::compiler_config(level)?)).map_err(|e| anyhow!("start WasmEdge: {e}"))?;
    lighter_runner::seal::compute_with_files(SCRATCH)?;

    let mut module = Vec::new();
    io::stdin().lock().read_to_end(&mut module).context("read module")?;
    match lighter_oci::sniff(&module[..module.len().min(16)]).map_err(|what| anyhow!("input {what}"))? {
        Kind::Module => {}
        Kind::Component => bail!(
            "wasmedge can't run this component: it runs WASI 0.1 modules only; build it for wasm32-wasip1, or choose the \
             engine wasmtime"
        ),
    }
    let module = sections::without_custom(&module).context("invalid module: a section is longer than the module")?;
    compiler
        .compile_from_bytes(module, CODE)
        .map_err(|error| anyhow!("invalid module: {}", engine::explain(&error.to_string())))?;
    let mut code = File::open(CODE).context("read code")?;
    io::copy(&mut code, &mut io::stdout().lock()).map(drop).context("write code")
}
