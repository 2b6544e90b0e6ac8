//! Compiles one WebAssembly module or component: bytes on standard input, native code on standard output.
//!
//! Hostile input meets a large program here, so the process bounds and seals itself before it reads the first byte: it
//! can compute, read what it was given and write what it makes, and nothing else. A failure is one line on standard
//! error and exit code 1.

mod baseline;
mod profile;

use std::{
    env,
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use lighter_oci::Kind;
use mimalloc::MiMalloc;
use nix::sys::resource::{Resource, setrlimit};
use wasmtime::Engine;

use crate::{baseline::Baseline, profile::profile_of};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Address space that a compilation may take, in bytes.
const MEMORY: u64 = 6 << 30;
/// CPU time that a compilation may take, in seconds, over all threads.
const CPU_SECONDS: u64 = 900;

const HELP: &str = "\
Compiles WebAssembly for lighter-wasmtime. The runner starts it on a cache miss; by hand:

  lighter-compile < guest.wasm > guest.cwasm               optimised code, by Cranelift
  lighter-compile --baseline < guest.wasm > guest.cwasm    code that is made faster and runs slower, by Winch

It reads a module or a component, seals itself, and takes at most 6 GiB of address space and 900 s of CPU time.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ref tier @ ([] | ["--baseline"]) if !io::stdin().is_terminal() => match compile(tier.is_empty()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}", format!("{error:#}").replace('\n', " "));
                ExitCode::FAILURE
            }
        },
        ["--version" | "-V"] => {
            println!(
                "lighter-compile {} ({}), wasmtime {}",
                env!("CARGO_PKG_VERSION"),
                lighter_runtime_api::COMMIT,
                lighter_wasmtime_engine::WASMTIME_VERSION
            );
            ExitCode::SUCCESS
        }
        ["--help" | "-h"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(2)
        }
    }
}

fn compile(optimised: bool) -> Result<()> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).context("bound memory")?;
    setrlimit(Resource::RLIMIT_CPU, CPU_SECONDS, CPU_SECONDS).context("bound time")?;
    lighter_runner::seal::compute_only()?;

    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).context("read module")?;
    let kind = lighter_oci::sniff(&bytes[..bytes.len().min(16)]).map_err(|what| anyhow!("input {what}"))?;
    let profile = profile_of(kind, &bytes).context("invalid component")?;
    let started = |error: wasmtime::Error| anyhow!("start Wasmtime: {error:#}");
    let code = if optimised {
        precompile(&lighter_wasmtime_engine::engine(profile).map_err(started)?, kind, &bytes)
    } else {
        Baseline::new(profile).map_err(started)?.compile(kind, &bytes)
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
