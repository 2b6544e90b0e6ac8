//! [`Backend`] for WasmEdge.

use lighter_runtime_api::{
    Backend, Code, Compiler, Error, Guest, Identity, Kind, MemoryBound, Network, Outcome, Ready, Supports,
};

use crate::{engine, module::LoadedModule};

/// The engine's name, as users write it.
pub(crate) const NAME: &str = "wasmedge";

/// The node's libwasmedge.
#[derive(Clone, Copy, Debug)]
pub struct WasmEdge;

/// What [`WasmEdge`] can run.
pub struct Loaded(LoadedModule);

impl Backend for WasmEdge {
    type Loaded = Loaded;

    fn identity(&self) -> Identity {
        Identity {
            name: NAME,
            version: engine::version(),
            compiler: Some(Compiler {
                program: "lighter-compile-wasmedge",
                fingerprint: engine::fingerprint(),
                baseline: true,
            }),
        }
    }

    fn resumes_waits(&self) -> bool {
        // Its waits are over with EINTR, and the guest takes that for the time that it asked for.
        false
    }

    fn supports(&self) -> Supports {
        Supports {
            components: false,
            imports: vec!["wasi_snapshot_preview1".to_owned()],
            worlds: Vec::new(),
            features: engine::FEATURES.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn load(&self, code: Code, guest: &Guest) -> Result<Loaded, Error> {
        engine::start()?;
        if code.kind == Kind::Component {
            return Err(Error::Unsupported {
                engine: NAME,
                what: "component",
                why: "it runs WASI 0.1 modules only; build it for wasm32-wasip1, or choose the engine wasmtime"
                    .to_owned(),
            });
        }
        if let Network::Listen(_) = &guest.grants.network {
            return Err(Error::Unsupported {
                engine: NAME,
                what: "module with ports",
                why:
                    "it can't hold a guest to the ports that it is granted; grant it the network, or choose the engine \
                      wasmtime"
                        .to_owned(),
            });
        }
        LoadedModule::new(code, guest).map(Loaded)
    }

    fn run(&self, loaded: Loaded, guest: &Guest, _: MemoryBound, ready: Ready) -> Result<Outcome, Error> {
        loaded.0.run(guest, ready)
    }
}
