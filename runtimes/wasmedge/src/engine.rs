//! The one configuration that compiler and runner share, and which library it is for.

use std::sync::OnceLock;

use lighter_runtime_api::Error;
use wasmedge_sdk::{CompilerOptimizationLevel, CompilerOutputFormat, RunMode, utils::CoreVersion};
use wasmedge_sys::Config;

use crate::messages;

/// The releases whose interface this was built for: the next may number its errors and proposals otherwise, under the
/// same library name.
const RELEASE: (u32, u32) = (0, 17);
/// Raised whenever [`config`] or [`compiler_config`] changes in a way that shapes code.
const GENERATION: u32 = 1;
/// Bytes of a page of linear memory.
const PAGE: u64 = 64 << 10;
/// Pages that a 32-bit memory has at most.
const PAGES: u32 = 1 << 16;

/// WebAssembly's proposals that code of [`config`] may use, as tools name them.
///
/// Source: WasmEdge's defaults, less what its compiler does not know.
pub const FEATURES: &[&str] = &[
    "bulk-memory",
    "extended-const",
    "floats",
    "multi-memory",
    "multi-value",
    "mutable-global",
    "reference-types",
    "relaxed-simd",
    "saturating-float-to-int",
    "sign-extension",
    "simd",
    "tail-call",
];

/// Version of the library that is loaded, such as `0.17.1`.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(CoreVersion::version_string)
}

/// Names the folder of code that this library loads, such as `wasmedge-0.17.1-x86_64-1`.
#[must_use]
pub fn fingerprint() -> String {
    format!("wasmedge-{}-{}-{GENERATION}", version(), std::env::consts::ARCH)
}

/// Looks whether the library is one that this was built for, and keeps what it says from the standard streams.
///
/// # Errors
/// It is another release.
pub fn start() -> Result<(), Error> {
    messages::keep();
    if (CoreVersion::major(), CoreVersion::minor()) == RELEASE {
        return Ok(());
    }
    Err(Error::Engine {
        operation: "start WasmEdge",
        why: format!(
            "this is for libwasmedge {}.{}, and {} is installed; install that release, or choose another engine",
            RELEASE.0,
            RELEASE.1,
            version()
        ),
    })
}

/// The last thing that the library said, or else `error`.
#[must_use]
pub fn explain(error: &str) -> String {
    let said = messages::take();
    if said.is_empty() { error.to_owned() } else { said }
}

/// For running compiled code, whose memories have at most `memory` bytes.
///
/// # Errors
/// The library has no memory left.
pub fn config(memory: Option<u64>) -> Result<Config, Error> {
    let mut config = Config::create().map_err(|error| failed("configure WasmEdge", &*error))?;
    config.set_run_mode(RunMode::Aot);
    // What the compiler does not know is refused alike by both, with a sentence that names it.
    config.gc(false);
    config.function_references(false);
    config.exception_handling(false);
    config.memory64(false);
    config.threads(false);
    config.component_model(false);
    config.allow_afunix(false);
    if let Some(pages) = memory.map(|bytes| bytes / PAGE) {
        config.set_max_memory_pages(u32::try_from(pages).map_or(PAGES, |pages| pages.min(PAGES)));
    }
    Ok(config)
}

/// For making code that [`config`] runs.
///
/// # Errors
/// As [`config`].
pub fn compiler_config(level: CompilerOptimizationLevel) -> Result<Config, Error> {
    let mut config = config(None)?;
    config.set_aot_optimization_level(level);
    // A shared object is mapped: replicas share it. The other format is copied.
    config.set_aot_compiler_output_format(CompilerOutputFormat::Native);
    // Nothing in the code tells for which CPU it is: the cache may come to another machine with its disk.
    config.generic_binary(true);
    Ok(config)
}

/// An [`Error::Engine`] of this operation.
pub(crate) fn failed(operation: &'static str, error: &dyn std::error::Error) -> Error {
    Error::Engine { operation, why: explain(&error.to_string()) }
}
