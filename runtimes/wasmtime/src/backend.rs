//! [`Backend`] for Wasmtime: tells modules from components, and both from what can't be run.

use std::error::Error as StdError;

use lighter_runtime_api::{
    Backend, Code, Compiler, Error, Guest, Identity, Kind, MemoryBound, Network, Outcome, Ready, Supports,
};
use lighter_wasmtime_engine::Profile;
use wasmtime::Engine;
use wasmtime_wasi::I32Exit;

use crate::{
    component::{self, LoadedComponent},
    http::{self, Handler},
    module::LoadedModule,
};

/// The engine's name, as users write it.
pub(crate) const NAME: &str = "wasmtime";

/// Wasmtime without a compiler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wasmtime;

/// What [`Wasmtime`] can run.
pub(crate) enum Loaded {
    Module(LoadedModule),
    Component(LoadedComponent),
    Handler(Handler),
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
                baseline: true,
            }),
        }
    }

    fn supports(&self) -> Supports {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Supports {
            components: true,
            imports: owned(&["wasi_snapshot_preview1"]),
            worlds: owned(&[
                "wasi:cli/",
                "wasi:clocks/",
                "wasi:config/store",
                "wasi:filesystem/",
                "wasi:http/",
                "wasi:io/",
                "wasi:keyvalue/",
                "wasi:random/",
                "wasi:sockets/",
                "wasi:tls/",
            ]),
            features: lighter_wasmtime_engine::features(),
        }
    }

    fn load(&self, code: Code, guest: &Guest) -> Result<Loaded, Error> {
        if code.kind == Kind::Module {
            return LoadedModule::new(&engine(Profile::Command)?, code).map(Loaded::Module);
        }
        // The compiler chose the profile by what the component exports, and labelled the code with it: an engine for
        // another looks no further than the label.
        let mut refused = None;
        for profile in Profile::ALL {
            match component::deserialize(&engine(profile)?, &code) {
                Ok(component) if profile == Profile::Command => {
                    return LoadedComponent::new(&component, guest).map(Loaded::Component);
                }
                Ok(component) => return Handler::new(profile, &component, &code, guest).map(Loaded::Handler),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let why = refused.map_or_else(String::new, |error| one_line(&error));
        Err(Error::StaleCode { path: code.path, why })
    }

    fn sockets(&self, loaded: &Loaded, guest: &Guest) -> Network {
        match loaded {
            Loaded::Handler(_) => http::sockets(guest),
            Loaded::Module(_) | Loaded::Component(_) => guest.grants.network.clone(),
        }
    }

    fn notes(&self, loaded: &Loaded) -> Vec<String> {
        let experimental = match loaded {
            Loaded::Module(_) => false,
            Loaded::Component(component) => component.is_third(),
            Loaded::Handler(handler) => handler.is_third(),
        };
        let note = || format!("WASI 0.3 is experimental in Wasmtime {}", lighter_wasmtime_engine::WASMTIME_VERSION);
        experimental.then(note).into_iter().collect()
    }

    fn run(&self, loaded: Loaded, guest: &Guest, memory: MemoryBound, ready: Ready) -> Result<Outcome, Error> {
        // Current-thread: a command is one guest, and threads that wait for nothing cost memory in every container.
        let mut event_loop = tokio::runtime::Builder::new_current_thread();
        match loaded {
            // WASI 0.1 can't open a socket: timers do, and there is no descriptor beyond the guest's own.
            Loaded::Module(module) => block_on(event_loop.enable_time(), module.run(guest, memory, ready)),
            Loaded::Component(component) => block_on(event_loop.enable_all(), component.run(guest, memory, ready)),
            Loaded::Handler(handler) => handler.serve(guest, memory, ready),
        }
    }
}

fn engine(profile: Profile) -> Result<Engine, Error> {
    lighter_wasmtime_engine::engine(profile).map_err(failed("start Wasmtime"))
}

fn block_on(
    event_loop: &mut tokio::runtime::Builder,
    guest: impl Future<Output = Result<Outcome, Error>>,
) -> Result<Outcome, Error> {
    event_loop.build().map_err(failed("start event loop"))?.block_on(guest)
}

/// How a guest ended that Wasmtime reports as an error: an exit in disguise, or a trap.
pub(crate) fn outcome_of(error: wasmtime::Error) -> Outcome {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        // A process's exit code has eight bits; the kernel would cut it the same way.
        return Outcome::Exited(exit.0.to_le_bytes()[0]);
    }
    // Its own form: the wasm backtrace, then the causes down to the trap.
    Outcome::Trapped(format!("{error:?}"))
}

/// An [`Error::Engine`] of this operation, in one line.
pub(crate) fn failed<E: Into<Box<dyn StdError + Send + Sync>>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Engine { operation, why: error.into().to_string() }
}

/// An error and its causes in one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect::<Vec<_>>().join(": ")
}
