//! Components: WASI 0.2 commands.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use lighter_runtime_api::{Code, Error, Guest, Outcome, Ready};
use wasmtime::{
    Engine, Store, StoreLimits,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxView, WasiView,
    p2::{self, bindings::CommandPre},
};

use crate::{
    backend::{NAME, failed, one_line, outcome_of},
    wasi,
};

/// A component whose imports are resolved.
pub(crate) struct LoadedComponent(CommandPre<State>);

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl LoadedComponent {
    pub(crate) fn new(engine: &Engine, code: Code, _guest: &Guest) -> Result<Self, Error> {
        let Code { file, path, .. } = code;
        // By descriptor, not by name: the entry may be evicted meanwhile.
        let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: the file comes out of our own compiler by way of the cache, whose folder only root can write and
        // whose checksum was just compared; it is open read-only and entries are never changed in place.
        let component = unsafe { Component::deserialize_file(engine, by_descriptor) }
            .map_err(|error| Error::StaleCode { path, why: one_line(&error) })?;
        let runs = component.component_type().exports(engine).any(|(name, _)| name.starts_with("wasi:cli/run@"));
        if !runs {
            let exports: Vec<String> =
                component.component_type().exports(engine).map(|(name, _)| name.to_owned()).collect();
            return Err(Error::Unsupported {
                engine: NAME,
                what: "component",
                why: format!(
                    "it does not export wasi:cli/run, so it is not a command (it exports {}); build it as a program",
                    if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
                ),
            });
        }
        let mut linker = Linker::new(engine);
        p2::add_to_linker_async(&mut linker).map_err(failed("link WASI"))?;
        let pre = linker
            .instantiate_pre(&component)
            .and_then(CommandPre::new)
            .map_err(|error| Error::Link(one_line(&error)))?;
        Ok(Self(pre))
    }

    pub(crate) async fn run(self, guest: &Guest, ready: Ready) -> Result<Outcome, Error> {
        let state =
            State { wasi: wasi::context(guest)?.build(), table: ResourceTable::new(), limits: wasi::limits(guest) };
        let mut store = Store::new(self.0.engine(), state);
        store.limiter(|state| &mut state.limits);
        ready();
        let ran = async {
            let command = self.0.instantiate_async(&mut store).await?;
            command.wasi_cli_run().call_run(&mut store).await
        };
        Ok(match ran.await {
            Ok(Ok(())) => Outcome::Exited(0),
            // `run` has no number to return: an error is a failure, as in any shell.
            Ok(Err(())) => Outcome::Exited(1),
            Err(error) => outcome_of(error),
        })
    }
}
