//! Runs WebAssembly containers on Wasmtime. No compiler inside: `lighter-compile` makes the code, this maps it.

mod backend;
mod component;
mod http;
mod imports;
mod keyvalue;
mod limits;
mod module;
mod outbound;
mod state;
mod tls;
mod wasi;

use std::process::ExitCode;

fn main() -> ExitCode {
    lighter_runner::main(backend::Wasmtime)
}
