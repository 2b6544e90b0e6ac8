//! What an engine must do to run a container: the backend contract.
//!
//! An engine is one crate that implements [`Backend`] and one `main` that hands it to the runner. The runner calls
//! [`Backend::load`] in a short-lived process on the host, forks the container's init off it, seals the init, and calls
//! [`Backend::run`] there. Beside the contract, what daemon and runner have in common: the status protocol, what the fetcher
//! is asked, the bound on memory, ids that are others on the host, and giving memory back. Must not know: any engine,
//! containers, containerd.

pub mod bound;
pub mod fetch;
pub mod id_map;
pub mod protocol;
pub mod resident;

use std::{fs::File, path::PathBuf};

pub use bound::MemoryBound;
pub use lighter_oci::{Guest, HostPattern, Http, Kind, Network};
use serde::{Deserialize, Serialize};

/// The commit that the binaries were built from, or `unknown` outside a git checkout; for `--version`.
pub const COMMIT: &str = match option_env!("LIGHTER_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// An engine.
pub trait Backend: 'static {
    /// A module or component that is ready to run.
    type Loaded: 'static;

    /// Who this is.
    fn identity(&self) -> Identity;

    /// What it can run, for those who choose between engines.
    fn supports(&self) -> Supports;

    /// What keeps its guests from the host.
    fn isolation(&self) -> Isolation {
        Isolation::Sealed
    }

    /// Whether a guest that waits goes on waiting after a signal that the runner handles for itself. Where it doesn't, the
    /// runner has no such signals.
    fn resumes_waits(&self) -> bool {
        true
    }

    /// Turns code into something that [`Self::run`] can start at once.
    ///
    /// Runs before the fork, as root on the host, so it must not execute a single instruction of the guest's, must not
    /// start threads, and must find whatever can be found wrong: a missing import, a missing entry function.
    ///
    /// # Errors
    /// [`Error::StaleCode`] makes the runner compile anew; every other error fails the container's creation.
    fn load(&self, code: Code, guest: &Guest) -> Result<Self::Loaded, Error>;

    /// Which sockets the process needs to run it: what the guest is granted, and where an engine serves a guest, its own.
    fn sockets(&self, _loaded: &Self::Loaded, guest: &Guest) -> Network {
        guest.grants.network.clone()
    }

    /// What there is to tell of how it will run, for the log; a line each.
    fn notes(&self, _loaded: &Self::Loaded) -> Vec<String> {
        Vec::new()
    }

    /// Runs the guest to its end, in the sealed init.
    ///
    /// `memory` begins as the guest's own bound, and may change at any time. `ready` must be called once, when all that is
    /// left is to execute the guest.
    ///
    /// # Errors
    /// What kept the guest from starting. What ends a guest that did start is an [`Outcome`].
    fn run(&self, loaded: Self::Loaded, guest: &Guest, memory: MemoryBound, ready: Ready) -> Result<Outcome, Error>;
}

/// What keeps a guest from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The runner's seal: the guest is WebAssembly, in the runner's own process.
    Sealed,
    /// The container's runtime spec as it is: the guest is a native program, whose exec replaces the runner's process.
    /// There is nothing to load, so that [`Backend::load`] refuses whatever it is given.
    Own,
}

/// Called when the guest's first instruction is next.
pub type Ready = Box<dyn FnOnce()>;

/// Who an engine is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As users write it, such as `wasmtime`.
    pub name: &'static str,
    /// The engine's own version.
    pub version: &'static str,
    /// How it gets native code; `None` for an interpreter, which gets the module itself.
    pub compiler: Option<Compiler>,
}

/// What an engine can run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supports {
    /// Whether it runs components.
    pub components: bool,
    /// Modules whose functions it provides to core modules, such as `wasi_snapshot_preview1`, and single functions, such as
    /// `wasi.thread-spawn`. WASI 0.1 stands for the functions that it was published with; what an engine adds to them is
    /// named.
    pub imports: Vec<String>,
    /// Prefixes of the interfaces that it provides to components, such as `wasi:cli/`.
    pub worlds: Vec<String>,
    /// WebAssembly's proposals, as tools name them: `bulk-memory`.
    pub features: Vec<String>,
}

/// What a runner says of itself: `lighter-ENGINE about` prints it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// As users write it, such as `wasmtime`.
    pub name: String,
    /// The engine's own version.
    pub version: String,
    /// The program that compiles for it; `None` of an interpreter.
    #[serde(default)]
    pub compiler: Option<String>,
    /// What it can run.
    #[serde(flatten)]
    pub supports: Supports,
}

/// A program that compiles for an engine.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// An executable beside the runner's. It reads a module from its standard input and writes native code to its
    /// standard output; a failure is one line on its standard error and exit code 1.
    pub program: &'static str,
    /// Engines with the same fingerprint load each other's code; a folder name.
    pub fingerprint: String,
    /// Whether it knows `--baseline`: code that is made many times faster and runs slower, which the same engine loads.
    pub baseline: bool,
}

/// What an engine loads.
#[derive(Debug)]
pub struct Code {
    /// The module's kind, by its magic bytes.
    pub kind: Kind,
    /// The module, or the compiler's output where the engine has one. Open for reading, at the start.
    pub file: File,
    /// Where the file is, for messages.
    pub path: PathBuf,
}

/// How a guest that started came to its end.
#[derive(Debug)]
pub enum Outcome {
    /// It returned or called exit.
    Exited(u8),
    /// It did what WebAssembly forbids. Holds the trap and the backtrace, several lines.
    Trapped(String),
}

/// Why a guest can't be loaded or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine can't run this kind of code at all.
    #[error("{engine} can't run this {what}: {why}")]
    Unsupported {
        /// The engine's name.
        engine: &'static str,
        /// Such as `component`.
        what: &'static str,
        /// The reason, and what could be done.
        why: String,
    },
    /// Compiled code that this engine refuses: made by another version or for another CPU.
    #[error("compiled code {path} does not fit this engine: {why}")]
    StaleCode {
        /// The cache entry.
        path: PathBuf,
        /// What the engine says.
        why: String,
    },
    /// The module is valid but can't be linked: an import that nobody provides, no entry function.
    #[error("link module: {0}")]
    Link(String),
    /// The engine failed on this host.
    #[error("{operation}: {why}")]
    Engine {
        /// Such as `open working directory`.
        operation: &'static str,
        /// What the engine or the kernel says.
        why: String,
    },
}

impl Error {
    /// What an engine says of a module that is no program: it exports no `_start`. Source: WASI 0.1's application ABI.
    #[must_use]
    pub fn no_command(engine: &'static str) -> Self {
        Self::Unsupported {
            engine,
            what: "module",
            why: "it exports no `_start` function, so it is a library (reactor), not a command; build it as a program with \
                  a main function"
                .to_owned(),
        }
    }
}
