//! The one Wasmtime configuration that compiler and runner share.
//!
//! Native code made under one configuration loads only under the same one, so it lives in a crate of its own:
//! `lighter-compile` builds it with Cranelift (feature `compiler`), `lighter-wasmtime` without.
//! Must not know: WASI, containers, where code is kept.

use wasmtime::{Config, Engine};

/// Version of the Wasmtime that is linked in, for `--version`.
pub const WASMTIME_VERSION: &str = env!("LIGHTER_WASMTIME_VERSION");

/// Raised whenever [`engine`] changes in a way that shapes code, so that old entries are not even tried.
const GENERATION: u32 = 1;

/// The engine that compiles or runs guests.
///
/// # Errors
/// Wasmtime refuses the configuration on this host (a CPU without what it needs).
pub fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    // Commands end by a signal handler, not by epochs: the guest pays nothing for being stoppable.
    config.epoch_interruption(false);
    Engine::new(&config)
}

/// Names the folder of code that this engine can load, such as `wasmtime-48.0.8-x86_64-1`.
///
/// It is coarser than Wasmtime's own check (`Engine::precompile_compatibility_hash` exists only where a compiler is
/// linked): code from a machine with another CPU has the same name, fails to load, and is made anew.
#[must_use]
pub fn fingerprint() -> String {
    format!("wasmtime-{WASMTIME_VERSION}-{}-{GENERATION}", std::env::consts::ARCH)
}
