//! Core modules: WASI 0.1 commands.
#![allow(unsafe_code)]

use std::{ffi::CString, os::fd::AsRawFd};

use lighter_runtime_api::{Code, Error, Guest, Outcome, Ready};
use wasmedge_sdk::{AsInstance, wasi::WasiModule};
use wasmedge_sys::{Config, Instance};

use crate::{
    backend::NAME,
    engine::{self, failed},
    native::{Executor, Failure, Module},
    plugins, wasi,
};

/// The function that a command exports.
const ENTRY: &str = "_start";

/// A module whose code is mapped and whose imports are there.
pub(crate) struct LoadedModule {
    config: Config,
    module: Module,
    wasi: WasiModule,
    plugins: Vec<Instance>,
}

impl LoadedModule {
    pub(crate) fn new(code: Code, guest: &Guest) -> Result<Self, Error> {
        wasi::check(guest)?;
        let Code { file, path, .. } = code;
        let config = engine::config(guest.memory)?;
        // By descriptor, not by name: the entry may be evicted meanwhile.
        let by_descriptor = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
        // SAFETY: the file comes out of our own compiler by way of the cache, whose folder only root can write and
        // whose checksum was just compared; it is open read-only and entries are never changed in place.
        let module = unsafe { Module::map(&config, &by_descriptor) };
        let stale = |Failure(why)| Error::StaleCode { path: path.clone(), why: one_line(&why) };
        let module = module.map_err(stale)?;
        // Run by the compiler already. The library wants it done by whoever runs the module.
        module.validate(&config).map_err(stale)?;
        if !module.exports_command(ENTRY) {
            return Err(Error::no_command(NAME));
        }
        let wasi = WasiModule::create(None, None, None).map_err(|error| failed("make WASI", &*error))?;
        let loaded = Self { config, module, wasi, plugins: plugins::modules()? };
        loaded.link()?;
        Ok(loaded)
    }

    /// Looks whether every import is there, with its type. The library would find out only while it runs the guest.
    fn link(&self) -> Result<(), Error> {
        for import in self.module.imports() {
            let (module, name) = (import.module(), import.name());
            if !self
                .providers()
                .any(|provider| provider.name().as_deref() == Some(&*module) && import.is_function_of(provider))
            {
                return Err(Error::Link(format!(
                    "nobody provides `{module}` `{name}` of the type that the module wants; there are {}",
                    self.providers().filter_map(AsInstance::name).collect::<Vec<_>>().join(", ")
                )));
            }
        }
        Ok(())
    }

    fn providers(&self) -> impl Iterator<Item = &dyn AsInstance> {
        let wasi: &Instance = self.wasi.as_ref();
        std::iter::once(wasi).chain(&self.plugins).map(|provider| provider as &dyn AsInstance)
    }

    pub(crate) fn run(mut self, guest: &Guest, ready: Ready) -> Result<Outcome, Error> {
        wasi::grant(&mut self.wasi, guest)?;
        let unprepared = |Failure(why)| Error::Engine { operation: "prepare WasmEdge", why: one_line(&why) };
        let mut executor = Executor::new(&self.config).map_err(unprepared)?;
        for provider in self.providers() {
            executor.offer(provider).map_err(unprepared)?;
        }
        ready();
        // A module's start function may be the guest's first code, so instantiation is part of its run.
        let ran = executor.instantiate(&self.module).and_then(|instance| executor.call(&instance, ENTRY));
        Ok(match ran {
            // A process's exit code has eight bits; the kernel would cut it the same way.
            Ok(()) => Outcome::Exited(self.wasi.exit_code().to_le_bytes()[0]),
            Err(Failure(why)) => Outcome::Trapped(why),
        })
    }
}

fn one_line(why: &str) -> String {
    why.split_whitespace().collect::<Vec<_>>().join(" ")
}
