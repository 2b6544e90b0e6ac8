//! The main of a compiler's program: its command line, and its bounds.
//!
//! Hostile input meets a large program in there, so each bounds itself before anything else, and seals itself
//! ([`crate::seal`]) before it reads the first byte. The runner starts it on a cache miss, `compile.rs`.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal},
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    thread,
    time::Duration,
};

use lighter_oci::Tier;
use lighter_runtime_api::COMMIT;
use nix::sys::{
    resource::{Resource, setrlimit},
    stat::{SFlag, fstat},
    sysinfo::sysinfo,
};

use crate::compile::BASELINE;

/// Address space that a compilation may take, in bytes.
const MEMORY: u64 = 6 << 30;
/// CPU time that a compilation may take, over all threads, at most.
pub(crate) const TIME: Duration = Duration::from_secs(900);
/// CPU time that every compilation may take, and what it may take for each MiB of the module beside. Others wait for its place, so
/// that a small module must not have it for long: optimisers take 0.4 s, LLVM a few.
const TIME_EACH: Duration = Duration::from_secs(60);
const TIME_MEBIBYTE: Duration = Duration::from_secs(20);
/// Compilers at once that every machine has: with one alone, a large module would hold up all the small ones.
const FEWEST: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

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

/// How many compilers may be at work at once where nobody says it: one for each of the machine's CPUs, but no more than its
/// memory holds if each takes all that it may.
pub(crate) fn at_once() -> NonZeroU32 {
    // A machine that doesn't say what it has gets the fewest.
    let cpus = thread::available_parallelism().map_or(0, NonZeroUsize::get);
    fitting(cpus as u64, sysinfo().map_or(0, |machine| machine.ram_total()))
}

fn fitting(cpus: u64, memory: u64) -> NonZeroU32 {
    let most = u32::try_from(cpus.min(memory / MEMORY)).unwrap_or(u32::MAX);
    NonZeroU32::new(most).map_or(FEWEST, |most| most.max(FEWEST))
}

fn bound() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    // Its output comes out of its memory. One that a module has taken over must not fill the disk either.
    setrlimit(Resource::RLIMIT_FSIZE, MEMORY, MEMORY)?;
    let time = time(module_bytes()).as_secs();
    setrlimit(Resource::RLIMIT_CPU, time, time)
}

/// Of the module, where it is a file.
fn module_bytes() -> Option<u64> {
    let module = fstat(io::stdin()).ok()?;
    let is_file = SFlag::from_bits_truncate(module.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
    is_file.then(|| module.st_size.unsigned_abs())
}

/// CPU time for a module of that many bytes.
fn time(bytes: Option<u64>) -> Duration {
    let mebibytes = bytes.map(|bytes| u32::try_from(bytes >> 20).unwrap_or(u32::MAX));
    mebibytes.map_or(TIME, |mebibytes| TIME_MEBIBYTE.saturating_mul(mebibytes).saturating_add(TIME_EACH).min(TIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_by_size() {
        let table = [(Some(0), 60), (Some(1 << 20), 80), (Some(30 << 20), 660), (Some(u64::MAX), 900), (None, 900)];
        for (bytes, seconds) in table {
            assert_eq!(time(bytes).as_secs(), seconds, "{bytes:?}");
        }
    }

    #[test]
    fn as_many_as_cpus_and_memory_have_room_for() {
        for (cpus, gibibytes, expected) in [(0, 0, 2), (1, 1, 2), (4, 16, 2), (4, 32, 4), (64, 256, 42), (8, 1024, 8)] {
            assert_eq!(fitting(cpus, gibibytes << 30).get(), expected, "{cpus} CPUs, {gibibytes} GiB");
        }
        assert!(at_once() >= FEWEST);
    }
}
