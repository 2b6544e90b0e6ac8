//! Which interfaces a component asks for, and the linker that has those and no others: each takes its time at every
//! container's start.

use lighter_runtime_api::Error;
use wasmtime::{
    Engine,
    component::{Component, Linker},
};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_config::WasiConfig;
use wasmtime_wasi_http::{p2 as http_p2, p3 as http_p3};
use wasmtime_wasi_tls::{p2 as tls_p2, p3 as tls_p3};

use crate::{backend::failed, keyvalue, state::State};

/// What a component imports, as far as it decides what its instances are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Imports {
    /// WASI 0.2's own packages.
    p2: bool,
    /// WASI 0.3's own packages.
    p3: bool,
    http_p2: bool,
    http_p3: bool,
    tls_p2: bool,
    tls_p3: bool,
    config: bool,
    /// Arguments, environment, working directory.
    pub(crate) environment: bool,
    pub(crate) preopens: bool,
    pub(crate) sockets: bool,
    pub(crate) keyvalue: bool,
}

impl Imports {
    /// Of this component.
    pub(crate) fn of(component: &Component) -> Self {
        Self::of_names(component.component_type().imports(component.engine()).map(|(name, _)| name))
    }

    fn of_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut imports = Self::default();
        for name in names {
            // Such as `wasi:cli/environment@0.2.6`.
            let (interface, version) = name.split_once('@').unwrap_or((name, ""));
            let third = version.starts_with("0.3.");
            match interface.split_once('/').unwrap_or((interface, "")) {
                ("wasi:http", _) if third => imports.http_p3 = true,
                ("wasi:http", _) => imports.http_p2 = true,
                ("wasi:tls", _) if third => imports.tls_p3 = true,
                ("wasi:tls", _) => imports.tls_p2 = true,
                ("wasi:config", _) => imports.config = true,
                ("wasi:keyvalue", _) => imports.keyvalue = true,
                (package, interface) => {
                    match (package, interface) {
                        ("wasi:cli", "environment") => imports.environment = true,
                        ("wasi:filesystem", "preopens") => imports.preopens = true,
                        ("wasi:sockets", _) => imports.sockets = true,
                        _ => {}
                    }
                    if third {
                        imports.p3 = true;
                    } else {
                        imports.p2 = true;
                    }
                }
            }
        }
        imports
    }

    /// Whether it may make TLS connections through the host.
    pub(crate) fn tls(self) -> bool {
        self.http_p2 || self.http_p3 || self.tls_p2 || self.tls_p3
    }

    /// A linker with these interfaces.
    pub(crate) fn linker(self, engine: &Engine) -> Result<Linker<State>, Error> {
        let mut linker = Linker::new(engine);
        self.add_to(&mut linker).map_err(failed("link WASI"))?;
        Ok(linker)
    }

    fn add_to(self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        if self.p2 {
            p2::add_to_linker_async(linker)?;
        }
        if self.p3 {
            p3::add_to_linker(linker)?;
        }
        if self.http_p2 {
            http_p2::add_only_http_to_linker_async(linker)?;
        }
        if self.http_p3 {
            http_p3::add_to_linker(linker)?;
        }
        if self.tls_p2 {
            let mut options = tls_p2::LinkOptions::default();
            // Drafts are linked when asked for.
            options.tls(true);
            tls_p2::add_to_linker(linker, &options)?;
        }
        if self.tls_p3 {
            tls_p3::add_to_linker(linker)?;
        }
        if self.config {
            wasmtime_wasi_config::add_to_linker(linker, |state: &mut State| WasiConfig::from(state.config()))?;
        }
        if self.keyvalue {
            keyvalue::add_to_linker(linker)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_told_by_package_and_version() {
        let none = Imports::default;
        let table: [(&[&str], Imports); 9] = [
            (&[], none()),
            (&["wasi:io/streams@0.2.6"], Imports { p2: true, ..none() }),
            (&["wasi:cli/environment@0.2.0"], Imports { p2: true, environment: true, ..none() }),
            (&["wasi:cli/environment@0.3.0"], Imports { p3: true, environment: true, ..none() }),
            (&["wasi:filesystem/types@0.2.0"], Imports { p2: true, ..none() }),
            (
                &["wasi:filesystem/preopens@0.2.0", "wasi:sockets/types@0.3.0"],
                Imports { p2: true, p3: true, preopens: true, sockets: true, ..none() },
            ),
            (&["wasi:http/types@0.2.0", "wasi:http/client@0.3.0"], Imports { http_p2: true, http_p3: true, ..none() }),
            (&["wasi:tls/types@0.2.0-draft"], Imports { tls_p2: true, ..none() }),
            (
                &["wasi:config/store@0.2.0-rc.1", "wasi:keyvalue/atomics@0.2.0-draft"],
                Imports { config: true, keyvalue: true, ..none() },
            ),
        ];
        for (names, expected) in table {
            assert_eq!(Imports::of_names(names.iter().copied()), expected, "{names:?}");
        }
    }
}
