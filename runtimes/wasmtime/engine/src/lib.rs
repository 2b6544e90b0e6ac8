//! The Wasmtime configurations that compiler and runner share, one for each way in which a guest is run.
//!
//! Native code made under one configuration loads only under the same one, so they live in a crate of their own:
//! `lighter-compile` builds it with Cranelift (feature `compiler`), `lighter-wasmtime` without.
//! Must not know: WASI, containers, where code is kept.

use wasmtime::{Config, Engine, PoolingAllocationConfig, WasmFeatures};

/// Version of the Wasmtime that is linked in, for `--version`.
pub const WASMTIME_VERSION: &str = env!("LIGHTER_WASMTIME_VERSION");

/// Raised whenever [`engine`] changes in a way that shapes code, so that old entries are not even tried.
const GENERATION: u32 = 2;

/// How a guest is run, which its code must know: code made for one does not load in an engine for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A command, alone in its process. It ends by a signal handler, so its code pays nothing for being stoppable.
    Command,
    /// A handler of HTTP requests, many instances of which share threads: its code asks at each loop whether it is time to
    /// let others run. Nothing of it is asynchronous in the component model's sense, which calls need not pay for then.
    Handler,
    /// The same with the component model's async, as WASI 0.3 has it.
    AsyncHandler,
}

impl Profile {
    /// All of them, the most frequent first.
    pub const ALL: [Self; 3] = [Self::Command, Self::Handler, Self::AsyncHandler];

    fn config(self) -> Config {
        let mut config = Config::new();
        config.epoch_interruption(self != Self::Command);
        config.concurrency_support(self != Self::Handler);
        config
    }
}

/// The engine that compiles or runs guests.
///
/// # Errors
/// Wasmtime refuses the configuration on this host (a CPU without what it needs).
pub fn engine(profile: Profile) -> wasmtime::Result<Engine> {
    Engine::new(&profile.config())
}

/// The engine of [`engine`] with instances from a pool, which is reserved at once.
///
/// # Errors
/// As [`engine`]; there is not enough address space for the pool.
pub fn pooled(profile: Profile, pool: PoolingAllocationConfig) -> wasmtime::Result<Engine> {
    let mut config = profile.config();
    config.allocation_strategy(pool);
    Engine::new(&config)
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
pub fn baseline(profile: Profile) -> wasmtime::Result<(Engine, Engine)> {
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
        let mut config = profile.config();
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
