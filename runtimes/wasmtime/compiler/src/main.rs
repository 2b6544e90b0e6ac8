//! Compiles one WebAssembly module or component: bytes on standard input, native code on standard output.
//!
//! Hostile input meets a large program here, so the process bounds and seals itself before it reads the first byte: it
//! can compute, read what it was given and write what it makes, and nothing else. A failure is one line on standard
//! error and exit code 1.

mod baseline;
mod profile;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use lighter_oci::{Kind, Tier};
use lighter_runner::compiler::{self, About};
use mimalloc::MiMalloc;
use wasmtime::Engine;

use crate::{baseline::Baseline, profile::profile_of};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const HELP: &str = "\
Compiles WebAssembly for lighter-wasmtime. The runner starts it on a cache miss; by hand:

  lighter-compile < guest.wasm > guest.cwasm               optimised code, by Cranelift
  lighter-compile --baseline < guest.wasm > guest.cwasm    code that is made faster and runs slower, by Winch

It reads a module or a component, seals itself, and takes at most 6 GiB of address space and, by its size, 900 s of CPU time.";

fn main() -> ExitCode {
    let engine = format!("wasmtime {}", lighter_wasmtime_engine::WASMTIME_VERSION);
    compiler::main(About { name: "lighter-compile", engine: &engine, help: HELP }, compile)
}

fn compile(tier: Tier) -> Result<()> {
    lighter_runner::seal::compute_only()?;

    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).context("read module")?;
    let kind = lighter_oci::sniff(&bytes[..bytes.len().min(16)]).map_err(|what| anyhow!("input {what}"))?;
    let profile = profile_of(kind, &bytes).context("invalid component")?;
    let started = |error: wasmtime::Error| anyhow!("start Wasmtime: {error:#}");
    let code = match tier {
        Tier::Optimised => precompile(&lighter_wasmtime_engine::engine(profile).map_err(started)?, kind, &bytes),
        Tier::Baseline => Baseline::new(profile).map_err(started)?.compile(kind, &bytes),
    }?;
    let mut output = io::stdout().lock();
    output.write_all(&code).and_then(|()| output.flush()).context("write code")
}

fn precompile(engine: &Engine, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>> {
    match kind {
        Kind::Module => engine.precompile_module(bytes),
        Kind::Component => engine.precompile_component(bytes),
    }
    .map_err(|error| anyhow!("invalid {}: {error:#}", kind.noun()))
}
