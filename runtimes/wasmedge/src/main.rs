//! Runs WebAssembly containers on WasmEdge. `lighter-compile-wasmedge` makes the code, this maps it.

use std::process::ExitCode;

fn main() -> ExitCode {
    lighter_runner::main(lighter_wasmedge::WasmEdge)
}
