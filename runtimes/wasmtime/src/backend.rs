//! [`Backend`] for Wasmtime: tells modules from components, and both from what can't be run.

use std::error::Error as StdError;

use lighter_runtime_api::{Backend, Code, Compiler, Error, Guest, Identity, Kind, Outcome, Ready};
use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use crate::{component::LoadedComponent, module::LoadedModule};

/// The engine's name, as users write it.
pub(crate) const NAME: &str = "wasmtime";

/// Wasmtime without a compiler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wasmtime;

/// What [`Wasmtime`] can run.
pub(crate) enum Loaded {
    Module(LoadedModule),
    Component(LoadedComponent),
}

impl Backend for Wasmtime {
    type Loaded = Loaded;

    fn identity(&self) -> Identity {
        Identity {
            name: NAME,
            version: lighter_wasmtime_engine::WASMTIME_VERSION,
            compiler: Some(Compiler {
                program: "lighter-compile",
                fingerprint: lighter_wasmtime_engine::fingerprint(),
            }),
        }
    }

    fn load(&self, code: Code, guest: &Guest) -> Result<Loaded, Error> {
        let engine = lighter_wasmtime_engine::engine().map_err(failed("start Wasmtime"))?;
        match code.kind {
            Kind::Module => LoadedModule::new(&engine, code).map(Loaded::Module),
            Kind::Component => LoadedComponent::new(&engine, code, guest).map(Loaded::Component),
        }
    }

    fn run(&self, loaded: Loaded, guest: &Guest, ready: Ready) -> Result<Outcome, Error> {
        // Current-thread: a command is one guest, and threads that wait for nothing cost memory in every container.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed("start event loop"))?;
        runtime.block_on(async {
            match loaded {
                Loaded::Module(module) => module.run(guest, ready).await,
                Loaded::Component(component) => component.run(guest, ready).await,
            }
        })
    }
}

/// How a guest ended that Wasmtime reports as an error: an exit in disguise, or a trap.
pub(crate) fn outcome_of(error: wasmtime::Error) -> Outcome {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        // A process's exit code has eight bits; the kernel would cut it the same way.
        return Outcome::Exited(exit.0.to_le_bytes()[0]);
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(trap) => format!("wasm trap: {trap}"),
        None => error.root_cause().to_string(),
    };
    // Wasmtime puts the backtrace into the error as its outermost context.
    let backtrace = error.downcast_ref::<wasmtime::WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
    Outcome::Trapped(format!("{what}\n{backtrace}"))
}

/// An [`Error::Engine`] of this operation, in one line.
pub(crate) fn failed<E: Into<Box<dyn StdError + Send + Sync>>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Engine { operation, why: error.into().to_string() }
}

/// An error and its causes in one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect::<Vec<_>>().join(": ")
}
