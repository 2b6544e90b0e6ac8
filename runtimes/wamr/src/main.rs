//! Runs WebAssembly containers on WAMR's interpreter. Nothing is compiled: a module is read, checked and run.

mod alarm;
mod backend;
mod features;
mod runtime;
mod trial;
mod wasi;

use std::process::ExitCode;

fn main() -> ExitCode {
    lighter_runner::main(backend::Wamr)
}
