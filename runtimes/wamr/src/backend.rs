//! [`Backend`] for WAMR: what it can run, and within which bounds.

use std::{fs::File, io::Read};

use lighter_runtime_api::{
    Backend, Code, Error, Guest, Identity, Kind, MemoryBound, Network, Outcome, Ready, Supports,
};

use nix::sys::prctl;

use crate::{
    alarm,
    runtime::{self, Bounds, Module},
    trial::{self, Findings},
    wasi::Wasi,
};

/// The engine's name, as users write it.
pub(crate) const NAME: &str = "wamr";

/// Bytes of a module. The runner holds it in memory that is not the container's.
const MODULE: u64 = 256 << 20;

/// Bytes for the frames of a guest's functions, enough for a recursion as deep as Wasmtime's default allows. WAMR's
/// stack does not grow; what a guest does not use of it is given back.
const STACK: u32 = 2 << 20;

/// Bytes for the frames of each thread. Not given back: WAMR makes it while the guest runs. All threads' stacks together
/// stay below what the plan keeps back from linear memory for the runner.
const THREAD_STACK: u32 = 128 << 10;

/// WAMR's interpreter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wamr;

/// A module that WAMR has accepted.
pub(crate) struct Loaded {
    bytes: Vec<u8>,
    findings: Findings,
}

impl Backend for Wamr {
    type Loaded = Loaded;

    fn identity(&self) -> Identity {
        Identity { name: NAME, version: runtime::version(), compiler: None }
    }

    fn supports(&self) -> Supports {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Supports {
            components: false,
            // WASI 0.1 with WAMR's sockets, and wasi-threads, whose guests share a memory that the host makes.
            imports: owned(&["wasi_snapshot_preview1", "wasi", "env.memory"]),
            worlds: Vec::new(),
            // In the build: see Cargo.toml. Each has a test in `features.rs`.
            features: owned(crate::features::FEATURES),
        }
    }

    fn load(&self, code: Code, guest: &Guest) -> Result<Loaded, Error> {
        if code.kind == Kind::Component {
            return Err(Error::Unsupported {
                engine: NAME,
                what: "component",
                why: "it runs core modules only, not components".to_owned(),
            });
        }
        let bytes = read(&code.file)?;
        // Huge pages would make of every memory of two MiB one that is used to the end.
        let _ = prctl::set_thp_disable(true);
        runtime::start()?;
        let findings = trial::run(&bytes)?;
        fits(&findings, guest)?;
        Ok(Loaded { bytes, findings })
    }

    fn run(&self, loaded: Loaded, guest: &Guest, memory: MemoryBound, ready: Ready) -> Result<Outcome, Error> {
        let Loaded { bytes, findings } = loaded;
        let module = Module::parse(bytes).map_err(unsupported)?;
        let wasi = Wasi::new(guest)?;
        let bounds = Bounds { stack: if findings.threads { THREAD_STACK } else { STACK }, memory: memory.current() };
        alarm::divert();
        ready();
        Ok(module.run(&wasi, &bounds))
    }
}

/// Whether the container grants what the module can't do without.
fn fits(findings: &Findings, guest: &Guest) -> Result<(), Error> {
    if findings.sockets && matches!(guest.grants.network, Network::Listen(_)) {
        return Err(Error::Unsupported {
            engine: NAME,
            what: "module",
            why: "it opens sockets, and this engine can't narrow them to the addresses that are granted; grant it the \
                  whole network or none"
                .to_owned(),
        });
    }
    Ok(())
}

/// The module's bytes. Into memory, so that what was checked is what runs: the file is the image's.
fn read(file: &File) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Engine { operation: "read module", why };
    let mut bytes = Vec::new();
    file.take(MODULE + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MODULE {
        return Err(failed(format!("it has more than {MODULE} bytes; run it on Wasmtime, which maps compiled code")));
    }
    Ok(bytes)
}

/// What WAMR says of a module that it refuses.
pub(crate) fn unsupported(why: String) -> Error {
    Error::Unsupported { engine: NAME, what: "module", why }
}
