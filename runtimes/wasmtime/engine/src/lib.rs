//! The one Wasmtime configuration that compiler and runner share.
//!
//! Native code made under one configuration loads only under the same one, so it lives in a crate of its own:
//! `lighter-compile` builds it with Cranelift (feature `compiler`), `lighter-wasmtime` without.
//! Must not know: WASI, containers, where code is kept.

use wasmtime::{Config, Engine, WasmFeatures};

/// Version of the Wasmtime that is linked in, for `--version`.
pub const WASMTIME_VERSION: &str = env!("LIGHTER_WASMTIME_VERSION");

/// Raised whenever [`engine`] changes in a way that shapes code, so that old entries are not even tried.
const GENERATION: u32 = 1;

/// The engine that compiles or runs guests.
///
/// # Errors
/// Wasmtime refuses the configuration on this host (a CPU without what it needs).
pub fn engine() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

fn config() -> Config {
    let mut config = Config::new();
    // Commands end by a signal handler, not by epochs: the guest pays nothing for being stoppable.
    config.epoch_interruption(false);
    config
}

/// WebAssembly's proposals that [`engine`] runs, as tools name them: `bulk-memory`.
#[must_use]
pub fn features() -> Vec<String> {
    // Source: wasmtime's `Config::features`, for the crate features above.
    let features = WasmFeatures::WASM3
        | WasmFeatures::GC_TYPES
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::THREADS
        | WasmFeatures::COMPONENT_MODEL
        | WasmFeatures::CM_ASYNC;
    features.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect()
}

/// Two engines that compile under [`engine`]'s settings but without the features that Winch lacks: Winch, and Cranelift
/// for comparison. What Winch lacks, both refuse with an error that names it.
///
/// # Errors
/// As [`engine`]; there is no Winch for this architecture.
#[cfg(feature = "compiler")]
pub fn baseline() -> wasmtime::Result<(Engine, Engine)> {
    use wasmtime::{OptLevel, Strategy};

    // Source: wasmtime's `Config::compiler_panicking_wasm_features`.
    let lacking = WasmFeatures::GC
        | WasmFeatures::GC_TYPES
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::LEGACY_EXCEPTIONS
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::THREADS;
    let with = |strategy| {
        let mut config = config();
        config.wasm_features(lacking, false).strategy(strategy);
        // What Winch has, whatever is asked for: the trampolines, which Cranelift makes for it, are checked.
        config.cranelift_opt_level(OptLevel::None).cranelift_debug_verifier(true);
        Engine::new(&config)
    };
    Ok((with(Strategy::Winch)?, with(Strategy::Cranelift)?))
}

/// Names the folder of code that this engine can load, such as `wasmtime-48.0.8-x86_64-1`.
///
/// It is coarser than Wasmtime's own check (`Engine::precompile_compatibility_hash` exists only where a compiler is
/// linked): code from a machine with another CPU has the same name, fails to load, and is made anew.
#[must_use]
pub fn fingerprint() -> String {
    format!("wasmtime-{WASMTIME_VERSION}-{}-{GENERATION}", std::env::consts::ARCH)
}
