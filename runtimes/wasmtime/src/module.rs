//! Core modules: WASI 0.1 commands.
#![allow(unsafe_code)]

use lighter_runtime_api::{Code, Error, Guest, MemoryBound, Outcome, Ready};
use wasmtime::{Engine, InstancePre, Linker, Module, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};

use crate::{
    backend::{NAME, failed, one_line, outcome_of},
    limits::Limits,
    wasi,
};

/// The function that a command exports.
const ENTRY: &str = "_start";

/// A module whose imports are resolved.
pub(crate) struct LoadedModule(InstancePre<State>);

struct State {
    wasi: WasiP1Ctx,
    limits: Limits,
}

impl LoadedModule {
    pub(crate) fn new(engine: &Engine, code: Code) -> Result<Self, Error> {
        let Code { file, path, .. } = code;
        // SAFETY: the file comes out of our own compiler by way of the cache, whose folder only root can write and
        // whose checksum was just compared; it is open read-only and entries are never changed in place.
        let module = unsafe { Module::deserialize_open_file(engine, file) }
            .map_err(|error| Error::StaleCode { path, why: one_line(&error) })?;
        if module.get_export(ENTRY).is_none() {
            return Err(Error::no_command(NAME));
        }
        let mut linker = Linker::new(engine);
        p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi).map_err(failed("link WASI"))?;
        let pre = linker.instantiate_pre(&module).map_err(|error| Error::Link(one_line(&error)))?;
        Ok(Self(pre))
    }

    pub(crate) async fn run(self, guest: &Guest, memory: MemoryBound, ready: Ready) -> Result<Outcome, Error> {
        let state = State { wasi: wasi::context(guest)?.build_p1(), limits: Limits::new(memory, None, None) };
        let mut store = Store::new(self.0.module().engine(), state);
        store.limiter(|state| &mut state.limits);
        ready();
        // A module's start function may be the guest's first code, so instantiation is part of its run.
        let ran = async {
            let instance = self.0.instantiate_async(&mut store).await?;
            instance.get_typed_func::<(), ()>(&mut store, ENTRY)?.call_async(&mut store, ()).await
        };
        Ok(match ran.await {
            Ok(()) => Outcome::Exited(0),
            Err(error) => outcome_of(error),
        })
    }
}
