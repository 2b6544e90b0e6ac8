//! The main of every runner: builds a sandbox, seals it, and hands the guest to an engine.
//!
//! ```text
//! create ── read plan ─ find module ─ compile or hit the cache ─ load ─┬─ fork ─▶ init: wait for start, seal, run
//!                                                                      └─ report the init's pid, exit
//! ```
//!
//! `exec` does the same for a process that joins a container: it enters namespaces in place of making them.
//!
//! A native program needs none of the middle, and its init execs it instead of sealing itself.
//!
//! Everything that can be wrong with a module is found before the fork, so that Create fails with its cause and there is
//! nothing to clean up. **Invariant:** the process is single-threaded until the guest runs; what forks must be.
//! Must not know: any engine, containerd.

mod background;
mod cli;
mod compile;
pub mod compiler;
mod create;
mod devices;
mod diagnostics;
mod error;
mod exec;
mod gaps;
mod hooks;
mod init;
mod join;
mod layer;
mod legacy;
mod refusal;

pub mod seal;
mod signals;
mod status;
mod terminal;
mod user_namespace;
mod users;
mod volumes;

pub use cli::main;
pub use error::Error;
