//! Runs native containers: a pod's pause, its sidecars, any image whose entrypoint is for the kernel.
//!
//! There is no engine in it. libcontainer applies the container's runtime spec, and the runner's process becomes the program.

use std::{convert::Infallible, process::ExitCode};

use lighter_runtime_api::{Backend, Code, Error, Guest, Identity, Isolation, MemoryBound, Outcome, Ready, Supports};

/// The engine's name, as users write it.
const NAME: &str = "native";

/// The kernel.
#[derive(Clone, Copy, Debug)]
struct Native;

impl Backend for Native {
    type Loaded = Infallible;

    fn identity(&self) -> Identity {
        Identity { name: NAME, version: env!("LIGHTER_LIBCONTAINER_VERSION"), compiler: None }
    }

    fn supports(&self) -> Supports {
        Supports::default()
    }

    fn isolation(&self) -> Isolation {
        Isolation::Own
    }

    fn load(&self, code: Code, _: &Guest) -> Result<Infallible, Error> {
        Err(Error::Unsupported {
            engine: NAME,
            what: code.kind.noun(),
            why: "it runs what the kernel runs; choose an engine for WebAssembly".to_owned(),
        })
    }

    fn run(&self, loaded: Infallible, _: &Guest, _: MemoryBound, _: Ready) -> Result<Outcome, Error> {
        match loaded {}
    }
}

fn main() -> ExitCode {
    lighter_runner::main(Native)
}
