//! Components: commands of WASI 0.2 and 0.3.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use lighter_runtime_api::{Code, Error, Guest, MemoryBound, Outcome, Ready};
use wasmtime::{Engine, component::Component};
use wasmtime_wasi::{p2, p3};

use crate::{
    backend::{NAME, one_line, outcome_of},
    state::{Prepared, Role, State, World},
};

/// A component whose imports are resolved.
pub(crate) struct LoadedComponent {
    command: Command,
    prepared: Prepared,
}

/// What runs: the two generations of WASI differ in how they are called.
enum Command {
    P2(p2::bindings::CommandPre<State>),
    P3(p3::bindings::CommandPre<State>),
}

/// Maps compiled code.
///
/// # Errors
/// It was made for another engine, profile or CPU.
pub(crate) fn deserialize(engine: &Engine, code: &Code) -> wasmtime::Result<Component> {
    // By descriptor, not by name: the entry may be evicted meanwhile.
    let by_descriptor = format!("/proc/self/fd/{}", code.file.as_raw_fd());
    // SAFETY: the file comes out of our own compiler by way of the cache, whose folder only root can write and whose
    // checksum was just compared; it is open read-only and entries are never changed in place.
    unsafe { Component::deserialize_file(engine, by_descriptor) }
}

impl LoadedComponent {
    pub(crate) fn new(component: &Component, _guest: &Guest) -> Result<Self, Error> {
        let engine = component.engine();
        let component_type = component.component_type();
        let exports: Vec<&str> = component_type.exports(engine).map(|(name, _)| name).collect();
        let entry = Entry::of(&exports).ok_or_else(|| Error::Unsupported {
            engine: NAME,
            what: "component",
            why: nothing_to_run(&exports),
        })?;
        let prepared = Prepared::new(component);
        let link = |error: wasmtime::Error| Error::Link(one_line(&error));
        let pre = prepared.linker(engine)?.instantiate_pre(component).map_err(link)?;
        let command = match entry {
            Entry::P2 => p2::bindings::CommandPre::new(pre).map(Command::P2),
            Entry::P3 => p3::bindings::CommandPre::new(pre).map(Command::P3),
        };
        Ok(Self { command: command.map_err(link)?, prepared })
    }

    /// Whether it is for WASI 0.3.
    pub(crate) fn is_third(&self) -> bool {
        matches!(self.command, Command::P3(_))
    }

    pub(crate) async fn run(self, guest: &Guest, memory: MemoryBound, ready: Ready) -> Result<Outcome, Error> {
        let world = World::open(self.prepared, guest, memory, Role::Command)?;
        let ran = match self.command {
            Command::P2(command) => {
                let mut store = world.store(command.engine());
                ready();
                async {
                    let command = command.instantiate_async(&mut store).await?;
                    command.wasi_cli_run().call_run(&mut store).await
                }
                .await
            }
            Command::P3(command) => {
                let mut store = world.store(command.engine());
                ready();
                async {
                    let command = command.instantiate_async(&mut store).await?;
                    store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await?
                }
                .await
            }
        };
        Ok(match ran {
            Ok(Ok(())) => Outcome::Exited(0),
            // `run` has no number to return: an error is a failure, as in any shell.
            Ok(Err(())) => Outcome::Exited(1),
            Err(error) => outcome_of(error),
        })
    }
}

/// Which `run` a component exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    P2,
    P3,
}

impl Entry {
    /// The older one where there are both: it is no longer an experiment.
    fn of(exports: &[&str]) -> Option<Self> {
        let exports = |generation: &str| {
            let mut versions = exports.iter().filter_map(|name| name.strip_prefix("wasi:cli/run@"));
            // Release candidates are worlds of their own.
            versions.any(|version| version.starts_with(generation) && !version.contains('-'))
        };
        exports("0.2.").then_some(Self::P2).or_else(|| exports("0.3.").then_some(Self::P3))
    }
}

fn nothing_to_run(exports: &[&str]) -> String {
    format!(
        "it exports {}, but none of wasi:cli/run (0.2, 0.3), wasi:http/incoming-handler (0.2) and wasi:http/handler \
         (0.3); build it as a program or as an HTTP handler",
        if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_by_version() {
        let table: [(&[&str], Option<Entry>); 6] = [
            (&["wasi:cli/run@0.2.0"], Some(Entry::P2)),
            (&["other", "wasi:cli/run@0.2.6"], Some(Entry::P2)),
            (&["wasi:cli/run@0.3.0"], Some(Entry::P3)),
            (&["wasi:cli/run@0.3.1", "wasi:cli/run@0.2.3"], Some(Entry::P2)),
            (&["wasi:cli/run@0.3.0-rc-2026-01-06"], None),
            (&["wasi:http/handler@0.3.0"], None),
        ];
        for (exports, expected) in table {
            assert_eq!(Entry::of(exports), expected, "{exports:?}");
        }
    }

    #[test]
    fn the_error_names_what_there_is_and_what_would_do() {
        assert!(nothing_to_run(&[]).starts_with("it exports nothing, but none of wasi:cli/run"));
        assert!(nothing_to_run(&["a:b/c@1.0.0", "d"]).starts_with("it exports a:b/c@1.0.0, d, but"));
    }
}
