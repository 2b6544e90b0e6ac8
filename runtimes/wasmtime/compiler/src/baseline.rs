//! Baseline code: Winch compiles in one pass, some ten times faster than Cranelift, to code that runs slower.
//!
//! Winch's code runs in the same runner: the calling convention inside a module is its own matter, and what enters and
//! leaves one are trampolines that the artifact brings along. But the runner, which has no compiler, can't be configured
//! to expect it, and refuses an artifact whose label says `winch_callable`. So the artifact gets the label that Cranelift
//! writes under the same settings and features. The labels are made here, by both compilers, and must differ in that one
//! flag; if a release of Wasmtime changes more, there is no baseline code, and a test fails.

use anyhow::{Context, Result, anyhow, ensure};
use lighter_oci::Kind;
use lighter_wasmtime_engine::Profile;
use object::{Object, ObjectSection, read::elf::ElfFile64};
use wasmtime::Engine;

use crate::precompile;

/// The section in which an artifact says what it was compiled for.
const LABEL: &str = ".wasmtime.engine";
/// The smallest module: preamble and nothing else.
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Both compilers under the settings of the runner, without the features that Winch lacks.
pub(crate) struct Baseline {
    winch: Engine,
    cranelift: Engine,
}

impl Baseline {
    pub(crate) fn new(profile: Profile) -> wasmtime::Result<Self> {
        let (winch, cranelift) = lighter_wasmtime_engine::baseline(profile)?;
        Ok(Self { winch, cranelift })
    }

    /// Compiles, or says why Winch can't: it has no garbage collection, exceptions, tail calls or relaxed SIMD.
    pub(crate) fn compile(&self, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut code = precompile(&self.winch, kind, bytes)?;
        let winch = label(&precompile(&self.winch, Kind::Module, EMPTY_MODULE)?)?;
        let cranelift = label(&precompile(&self.cranelift, Kind::Module, EMPTY_MODULE)?)?;
        let differing: Vec<(u8, u8)> =
            winch.iter().zip(&cranelift).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect();
        ensure!(
            winch.len() == cranelift.len() && differing == [(1, 0)],
            "Wasmtime {} labels Winch's code in a way that is not known",
            lighter_wasmtime_engine::WASMTIME_VERSION
        );
        let (start, length) = label_range(&code)?;
        let found = code.get_mut(start..start + length).context("label of the code")?;
        ensure!(*found == winch, "Winch labelled this code differently from others");
        found.copy_from_slice(&cranelift);
        Ok(code)
    }
}

fn label(code: &[u8]) -> Result<Vec<u8>> {
    let (start, length) = label_range(code)?;
    code.get(start..start + length).map(<[u8]>::to_vec).context("label of the code")
}

/// Offset and length in bytes.
fn label_range(code: &[u8]) -> Result<(usize, usize)> {
    let file = ElfFile64::<object::Endianness>::parse(code).context("read compiled code")?;
    let section = file.section_by_name(LABEL).ok_or_else(|| anyhow!("compiled code has no section {LABEL}"))?;
    let (start, length) = section.file_range().ok_or_else(|| anyhow!("section {LABEL} is empty"))?;
    Ok((usize::try_from(start)?, usize::try_from(length)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, unsafe_code)]
mod tests {
    use wasmtime::{Instance, Module, Store};

    use super::*;

    #[test]
    fn baseline_code_loads_and_runs_where_optimised_code_does() {
        let wasm = wat::parse_str(
            r#"(module (memory 1) (table 2 funcref) (elem (i32.const 0) $double)
                 (type $f (func (param i32) (result i32)))
                 (func $double (type $f) local.get 0 i32.const 2 i32.mul)
                 (func (export "f") (param i32) (result i32)
                   (i32.store (i32.const 8) (local.get 0))
                   (call_indirect (type $f) (i32.load (i32.const 8)) (i32.const 0))))"#,
        )
        .unwrap();
        for profile in Profile::ALL {
            let code = Baseline::new(profile).unwrap().compile(Kind::Module, &wasm).unwrap();
            let engine = lighter_wasmtime_engine::engine(profile).unwrap();
            // SAFETY: compiled in the line above.
            let module = unsafe { Module::deserialize(&engine, &code) }.unwrap();
            let mut store = Store::new(&engine, ());
            // It is far away where there are epochs at all.
            store.set_epoch_deadline(1);
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let double = instance.get_typed_func::<i32, i32>(&mut store, "f").unwrap();
            assert_eq!(double.call(&mut store, 21).unwrap(), 42);
            // It is Winch's indeed.
            let optimised = precompile(&engine, Kind::Module, &wasm).unwrap();
            assert_ne!(code, optimised);
        }
    }

    #[test]
    fn what_winch_lacks_is_an_error() {
        let tail_call = wat::parse_str("(module (func $f return_call $f))").unwrap();
        assert!(Baseline::new(Profile::Command).unwrap().compile(Kind::Module, &tail_call).is_err());
        let engine = lighter_wasmtime_engine::engine(Profile::Command).unwrap();
        precompile(&engine, Kind::Module, &tail_call).unwrap();
    }

    #[test]
    fn code_of_one_profile_does_not_load_in_another() {
        let compiled = Profile::ALL.map(|profile| {
            precompile(&lighter_wasmtime_engine::engine(profile).unwrap(), Kind::Module, EMPTY_MODULE).unwrap()
        });
        for (made_for, code) in Profile::ALL.iter().zip(&compiled) {
            for profile in Profile::ALL {
                let engine = lighter_wasmtime_engine::engine(profile).unwrap();
                // SAFETY: compiled above.
                let loaded = unsafe { Module::deserialize(&engine, code) };
                assert_eq!(loaded.is_ok(), profile == *made_for, "{made_for:?} in {profile:?}");
            }
        }
    }
}
