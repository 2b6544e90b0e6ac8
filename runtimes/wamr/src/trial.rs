//! Reads a module in a process that can do nothing else, before anything else depends on it.
//!
//! WAMR's reader is C, and a module may be made to break it. The runner is root on the host; so what it learns of a module
//! it learns from a child that is sealed like a compiler. The container's init, sealed as well, reads the module again.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use lighter_runtime_api::Error;
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork, pipe},
};
use serde::{Deserialize, Serialize};

use crate::{
    backend::{NAME, unsupported},
    runtime::{Import, Module},
};

/// Bytes that the child may map.
const MEMORY: u64 = 4 << 30;
/// Seconds of CPU time that it may take.
const CPU_SECONDS: u64 = 60;
/// Bytes that it may say.
const REPORT: u64 = 16 << 10;

/// What a module needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Whether it opens sockets.
    pub(crate) sockets: bool,
    /// Whether it starts threads.
    pub(crate) threads: bool,
}

/// Why a module can't be run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Refusal {
    /// WAMR refuses it.
    Module(String),
    /// It has no function to begin with.
    NoEntry,
    /// Nobody provides this import.
    Import(String),
    /// The child could not be sealed, so it did not look.
    Seal(String),
}

/// Finds out what a module needs. This process must be single-threaded, and have started the runtime.
///
/// # Errors
/// The module can't be run, or could not be looked at.
pub(crate) fn run(bytes: &[u8]) -> Result<Findings, Error> {
    let failed = |why: String| Error::Engine { operation: "check module", why };
    let (read, write) = pipe().map_err(|errno| failed(format!("make a pipe: {errno}")))?;
    // SAFETY: this process is single-threaded, so the child may do what its parent might; it ends in `child`.
    let child = match unsafe { fork() }.map_err(|errno| failed(format!("fork: {errno}")))? {
        ForkResult::Child => child(bytes, write),
        ForkResult::Parent { child } => child,
    };
    drop(write);
    let mut report = Vec::new();
    let said = File::from(read).take(REPORT).read_to_end(&mut report);
    let ended = waitpid(child, None).map_err(|errno| failed(format!("wait for it: {errno}")))?;
    said.map_err(|error| failed(format!("read what was found: {error}")))?;
    // Whoever broke the reader could write anything. A lie makes a container that its own sealed init refuses.
    match (serde_json::from_slice::<Result<Findings, Refusal>>(&report), ended) {
        (Ok(Ok(findings)), _) => Ok(findings),
        (Ok(Err(refusal)), _) => Err(refusal.into()),
        (Err(_), WaitStatus::Signaled(_, signal, _)) => {
            Err(failed(format!("ended by {signal}: it needs more memory or time than reading a module may take")))
        }
        (Err(_), ended) => Err(failed(format!("nothing was found out ({ended:?})"))),
    }
}

/// What the child does: seals itself, looks, tells, ends.
fn child(bytes: &[u8], write: OwnedFd) -> ! {
    let done = catch_unwind(AssertUnwindSafe(|| {
        let report = seal(&write).map_err(Refusal::Seal).and_then(|()| examine(bytes.to_vec()));
        let report = serde_json::to_vec(&report).unwrap_or_default();
        // The seal leaves the pipe under this number.
        std::io::stdout().write_all(&report).and_then(|()| std::io::stdout().flush())
    }));
    // SAFETY: `_exit` takes any value, and runs nothing of what the child has from its parent.
    unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
}

/// Leaves the child nothing but computing, and writing to its standard output.
fn seal(write: &OwnedFd) -> Result<(), String> {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // SAFETY: both are open; the child's standard output is the container's, which is not for it.
    if unsafe { libc::dup2(write.as_raw_fd(), libc::STDOUT_FILENO) } == -1 {
        return Err(format!("hand over the pipe: {}", std::io::Error::last_os_error()));
    }
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).map_err(|errno| format!("bound memory: {errno}"))?;
    setrlimit(Resource::RLIMIT_CPU, CPU_SECONDS, CPU_SECONDS).map_err(|errno| format!("bound time: {errno}"))?;
    lighter_runner::seal::compute_only().map_err(|error| error.to_string())
}

/// Reads the module and looks at what it wants.
fn examine(bytes: Vec<u8>) -> Result<Findings, Refusal> {
    let module = Module::parse(bytes).map_err(Refusal::Module)?;
    let (mut sockets, mut threads) = (false, false);
    for import in module.imports() {
        if !provided(&import) {
            return Err(Refusal::Import(format!("`{}::{}`", import.module, import.name)));
        }
        sockets |= import.name == "sock_open";
        threads |= import.name == "thread-spawn";
    }
    if !module.is_command() {
        return Err(Refusal::NoEntry);
    }
    Ok(Findings { sockets, threads })
}

/// Whether something is there to import. WAMR itself only warns, and traps when the function is called.
fn provided(import: &Import) -> bool {
    // wasi-threads: the memory that all threads share is made by the host.
    let shared_memory = import.memory && import.module == "env" && import.name == "memory";
    import.linked || (shared_memory && !import.function)
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Module(why) => unsupported(why),
            Refusal::NoEntry => Error::no_command(NAME),
            Refusal::Import(name) => Error::Link(format!("unknown import: {name} has not been defined")),
            Refusal::Seal(why) => Error::Engine { operation: "seal the check of the module", why },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::runtime;

    fn examined(wat: &str) -> Result<Findings, Refusal> {
        runtime::start().unwrap();
        examine(wat::parse_str(wat).unwrap())
    }

    /// What WASI asks of every command.
    const COMMAND: &str = r#"(memory (export "memory") 3) (func (export "_start"))"#;

    #[test]
    fn a_module_says_what_it_needs() {
        let findings = |sockets, threads| Ok(Findings { sockets, threads });
        let wasi =
            |name: &str, ty: &str| format!(r#"(module (import "wasi_snapshot_preview1" "{name}" {ty}) {COMMAND})"#);
        let table = [
            (format!("(module {COMMAND})"), findings(false, false)),
            (wasi("sched_yield", "(func (result i32))"), findings(false, false)),
            (wasi("sock_open", "(func (param i32 i32 i32 i32) (result i32))"), findings(true, false)),
            (
                r#"(module (import "env" "memory" (memory 2 5 shared))
                     (import "wasi" "thread-spawn" (func (param i32) (result i32)))
                     (export "memory" (memory 0)) (func (export "_start")))"#
                    .to_owned(),
                findings(false, true),
            ),
        ];
        for (wat, expected) in table {
            assert_eq!(examined(&wat), expected, "{wat}");
        }
    }

    #[test]
    fn what_nobody_provides_is_refused_by_its_name() {
        let import = |import: &str| examined(&format!("(module (import {import}) {COMMAND})"));
        let table = [
            r#""env" "nothing" (func)"#,
            r#""wasi_snapshot_preview1" "nothing" (func)"#,
            // There is one of this name, of another type.
            r#""wasi_snapshot_preview1" "sched_yield" (func (param i64))"#,
            r#""env" "global" (global i32)"#,
            r#""env" "table" (table 1 funcref)"#,
        ];
        for wat in table {
            assert!(matches!(import(wat), Err(Refusal::Import(_))), "{wat}: {:?}", import(wat));
        }
    }

    #[test]
    fn a_library_and_a_broken_module_are_refused() {
        assert_eq!(examined(r#"(module (func (export "other")))"#), Err(Refusal::NoEntry));
        assert_eq!(examined(r#"(module (global (export "_start") i32 (i32.const 1)))"#), Err(Refusal::NoEntry));
        runtime::start().unwrap();
        assert!(matches!(examine(b"\0asm\x01\0\0\0\x01\xff".to_vec()), Err(Refusal::Module(_))));
    }
}
