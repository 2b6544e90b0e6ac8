//! WebAssembly's proposals that this build of WAMR runs.

/// As tools name them. Source: `build-scripts/config_common.cmake` of WAMR for the crate features in `Cargo.toml`.
pub(crate) const FEATURES: &[&str] = &[
    "mutable-global",
    "saturating-float-to-int",
    "sign-extension",
    "reference-types",
    "multi-value",
    "bulk-memory",
    "simd",
    "threads",
    "tail-call",
    "floats",
    "extended-const",
    "gc-types",
    "call-indirect-overlong",
    "bulk-memory-opt",
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::FEATURES;
    use crate::runtime::{self, Module};

    /// A module for each proposal that needs it, and the proposals that WAMR lacks.
    const MODULES: &[(&str, &str)] = &[
        ("mutable-global", r#"(module (global (export "g") (mut i32) (i32.const 0)))"#),
        ("saturating-float-to-int", "(module (func (result i32) f32.const 1 i32.trunc_sat_f32_s))"),
        ("sign-extension", "(module (func (result i32) i32.const 1 i32.extend8_s))"),
        ("reference-types", "(module (table 1 externref) (func (result externref) i32.const 0 table.get 0))"),
        ("multi-value", "(module (func (result i32 i32) i32.const 1 i32.const 2))"),
        (
            "bulk-memory",
            r#"(module (memory 1) (data "x") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))))"#,
        ),
        ("simd", "(module (func (result v128) v128.const i32x4 1 2 3 4 v128.const i32x4 1 2 3 4 i32x4.add))"),
        ("threads", "(module (memory 1 1 shared) (func (result i32) (i32.atomic.load (i32.const 0))))"),
        ("tail-call", "(module (func $f return_call $f))"),
        ("floats", "(module (func (result f64) f64.const 1))"),
        ("extended-const", "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))"),
        ("gc-types", "(module (func (param externref)))"),
        (
            "call-indirect-overlong",
            "(module (table 1 funcref) (table 1 funcref) (func (call_indirect 1 (i32.const 0))))",
        ),
        ("bulk-memory-opt", "(module (memory 1) (func (memory.copy (i32.const 0) (i32.const 1) (i32.const 2))))"),
        (
            "relaxed-simd",
            "(module (func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))",
        ),
        ("memory64", "(module (memory i64 1))"),
        ("multi-memory", "(module (memory 1) (memory 1))"),
        ("exceptions", "(module (tag $e) (func (throw $e)))"),
        ("function-references", "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))"),
        ("gc", "(module (type (struct (field i32))))"),
    ];

    #[test]
    fn what_is_listed_is_read_and_nothing_else() {
        runtime::start().unwrap();
        for (name, wat) in MODULES {
            let parsed = Module::parse(wat::parse_str(wat).unwrap());
            assert_eq!(parsed.is_ok(), FEATURES.contains(name), "{name}: {parsed:?}");
        }
        for name in FEATURES {
            assert!(MODULES.iter().any(|(tried, _)| tried == name), "nothing tries {name}");
        }
    }
}
