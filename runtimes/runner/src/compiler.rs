//! The main of a compiler's program: its command line, and its bounds.
//!
//! Hostile input meets a large program in there, so each bounds itself before anything else, and seals itself
//! ([`crate::seal`]) before it reads the first byte. The runner starts it on a cache miss, `compile.rs`.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal},
    process::ExitCode,
};

use lighter_oci::Tier;
use lighter_runtime_api::COMMIT;
use nix::sys::resource::{Resource, setrlimit};

use crate::compile::BASELINE;

/// Address space that a compilation may take, in bytes.
const MEMORY: u64 = 6 << 30;
/// CPU time that a compilation may take, in seconds, over all threads.
const CPU_SECONDS: u64 = 900;

/// What a compiler says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The program's, such as `lighter-compile`.
    pub name: &'a str,
    /// The engine and its version, such as `wasmtime 48.0.8`.
    pub engine: &'a str,
    /// What `--help` prints.
    pub help: &'a str,
}

/// Runs a compiler and returns its exit code. `compile` reads a module from standard input and writes code to standard
/// output; its error becomes one line on standard error.
#[must_use]
pub fn main<E: Display>(about: About<'_>, compile: impl FnOnce(Tier) -> Result<(), E>) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let tier = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--version" | "-V"] => {
            println!("{} {} ({COMMIT}), {}", about.name, env!("CARGO_PKG_VERSION"), about.engine);
            return ExitCode::SUCCESS;
        }
        ["--help" | "-h"] => {
            println!("{}", about.help);
            return ExitCode::SUCCESS;
        }
        [] if !io::stdin().is_terminal() => Tier::Optimised,
        [BASELINE] if !io::stdin().is_terminal() => Tier::Baseline,
        _ => {
            eprintln!("{}", about.help);
            return ExitCode::from(2);
        }
    };
    let failure = match bound() {
        Err(error) => format!("bound memory and time: {error}"),
        Ok(()) => match compile(tier) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => format!("{error:#}"),
        },
    };
    eprintln!("{}", failure.split_whitespace().collect::<Vec<_>>().join(" "));
    ExitCode::FAILURE
}

fn bound() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    setrlimit(Resource::RLIMIT_CPU, CPU_SECONDS, CPU_SECONDS)
}
