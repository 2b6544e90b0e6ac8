//! Which WebAssembly proposals a binary needs: the smallest set of features under which it is valid.

use wasmparser::{
    Error, FuncToValidate, FunctionBody, Parser, ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

use lighter_oci::Kind;

/// Validates a binary and finds the features that it needs beyond the first WebAssembly.
///
/// Takes one pass over the function bodies, and one over the rest for each feature that the rest needs.
///
/// # Errors
/// The binary is invalid under every set of features.
pub(crate) fn needed(bytes: &[u8], kind: Kind) -> Result<WasmFeatures, Error> {
    let mut features = first(kind);
    while let Err(error) = sections(bytes, features, |_, _| Ok(())) {
        features = grown(features, error, |more| sections(bytes, more, |_, _| Ok(())))?;
    }
    let mut needed = features;
    sections(bytes, features, |function, body| {
        while let Err(error) = validate(&function, &body, needed) {
            needed = grown(needed, error, |more| validate(&function, &body, more))?;
        }
        Ok(())
    })?;
    Ok(needed)
}

/// The names of a set, as `wasm-tools` and Wasmtime's options write them, such as `bulk-memory`.
pub(crate) fn names(features: WasmFeatures) -> Vec<String> {
    let beyond = features.difference(first(Kind::Component));
    beyond.iter_names().map(|(name, _)| spelled(name)).collect()
}

/// The names of what is in `needed` and not in `provided`.
pub(crate) fn missing(needed: WasmFeatures, provided: WasmFeatures) -> Vec<String> {
    // By name, not by difference: a feature that is half there has no name.
    let lacking = needed.iter_names().filter(|(_, feature)| !provided.contains(*feature));
    lacking.map(|(name, _)| spelled(name)).collect()
}

/// The set that these names make, beside what every engine has. A name that this release doesn't know adds nothing.
pub(crate) fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> WasmFeatures {
    names
        .into_iter()
        .filter_map(|name| WasmFeatures::from_name(&name.to_ascii_uppercase().replace('-', "_")))
        .fold(first(Kind::Component), WasmFeatures::union)
}

fn spelled(constant: &str) -> String {
    constant.to_ascii_lowercase().replace('_', "-")
}

/// What isn't asked about: the first WebAssembly, and that a component is a component.
fn first(kind: Kind) -> WasmFeatures {
    match kind {
        Kind::Module => WasmFeatures::MVP,
        Kind::Component => WasmFeatures::MVP.union(WasmFeatures::COMPONENT_MODEL),
    }
}

/// Validates everything but the function bodies, which `on_body` gets.
fn sections<'a>(
    bytes: &'a [u8],
    features: WasmFeatures,
    mut on_body: impl FnMut(FuncToValidate<ValidatorResources>, FunctionBody<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut validator = Validator::new_with_features(features);
    for payload in Parser::new(0).parse_all(bytes) {
        if let ValidPayload::Func(function, body) = validator.payload(&payload?)? {
            on_body(function, body)?;
        }
    }
    Ok(())
}

fn validate(
    function: &FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    features: WasmFeatures,
) -> Result<(), Error> {
    let FuncToValidate { resources, index, ty, .. } = function;
    let function = FuncToValidate { resources: resources.clone(), index: *index, ty: *ty, features };
    function.into_validator(Default::default()).validate(body)
}

/// A larger set that gets past `error`; the error is the answer where there is none.
fn grown(
    features: WasmFeatures,
    error: Error,
    valid: impl Fn(WasmFeatures) -> Result<(), Error>,
) -> Result<WasmFeatures, Error> {
    if let Some(missing) = error.missing_wasm_feature()
        && !features.contains(missing)
    {
        return Ok(features.union(missing));
    }
    // Not every error names its feature: from all of them, take away what isn't missed.
    valid(WasmFeatures::all())?;
    let candidates = WasmFeatures::all().difference(features);
    let smallest = candidates.iter().fold(WasmFeatures::all(), |kept, candidate| {
        let fewer = kept.difference(candidate).union(features);
        if valid(fewer).is_ok() { fewer } else { kept }
    });
    // A set that doesn't grow would be tried forever.
    if smallest == features { Err(error) } else { Ok(smallest) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_module_needs_and_nothing_else() {
        let table: &[(&str, &[&str])] = &[
            ("(module (func (export \"_start\")))", &[]),
            ("(module (func (param i32) (result i32) local.get 0 i32.extend8_s))", &["sign-extension"]),
            ("(module (func (param f32) (result i32) local.get 0 i32.trunc_sat_f32_s))", &["saturating-float-to-int"]),
            ("(module (func (result i32 i32) i32.const 1 i32.const 2))", &["multi-value"]),
            ("(module (global (export \"g\") (mut i32) (i32.const 0)))", &["mutable-global"]),
            (
                "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))",
                &["bulk-memory-opt"],
            ),
            (
                "(module (memory 1) (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0))) (data \"\"))",
                &["bulk-memory"],
            ),
            ("(module (func (param v128)))", &["simd"]),
            ("(module (func (result v128) v128.const i32x4 0 0 0 0))", &["simd"]),
            ("(module (memory 1 2 shared))", &["threads"]),
            ("(module (memory i64 1))", &["memory64"]),
            ("(module (memory 1) (memory 1))", &["multi-memory"]),
            ("(module (func $f return_call $f))", &["tail-call"]),
            ("(module (table 1 externref))", &["reference-types"]),
            ("(module (global i32 (i32.add (i32.const 1) (i32.const 2))))", &["extended-const"]),
            ("(module (tag) (func (throw 0)))", &["exceptions"]),
        ];
        for (text, expected) in table {
            let bytes = wat::parse_str(text).unwrap();
            assert_eq!(names(needed(&bytes, Kind::Module).unwrap()), *expected, "{text}");
        }
    }

    #[test]
    fn a_set_is_found_under_which_the_binary_is_valid() {
        let text = "(module (type (struct (field i32))) (func (result anyref) i32.const 1 struct.new 0))";
        let bytes = wat::parse_str(text).unwrap();
        let features = needed(&bytes, Kind::Module).unwrap();
        assert!(names(features).contains(&"gc".to_owned()), "{:?}", names(features));
        Validator::new_with_features(features).validate_all(&bytes).unwrap();
    }

    #[test]
    fn every_need_of_a_component_is_found_inside_it() {
        let text = "(component (core module (memory 1 2 shared) (func (result v128) v128.const i64x2 0 0)))";
        let bytes = wat::parse_str(text).unwrap();
        assert_eq!(names(needed(&bytes, Kind::Component).unwrap()), ["simd", "threads"]);
    }

    #[test]
    fn an_invalid_binary_is_an_error_and_ends() {
        let bytes = wat::parse_str("(module (func (result i32) i64.const 1))").unwrap();
        assert!(needed(&bytes, Kind::Module).unwrap_err().message().contains("type mismatch"));
        let sound = wat::parse_str("(module (func (export \"f\") (param v128)))").unwrap();
        for end in 8..sound.len() {
            // Some prefixes are modules of their own.
            let _ = needed(&sound[..end], Kind::Module);
        }
    }

    #[test]
    fn names_and_sets_are_inverse() {
        let features = WasmFeatures::SIMD | WasmFeatures::REFERENCE_TYPES | WasmFeatures::CM_ASYNC;
        let names = names(features);
        assert_eq!(names, ["reference-types", "simd", "cm-async"]);
        let set = from_names(names.iter().map(String::as_str));
        assert!(set.contains(features) && !set.contains(WasmFeatures::THREADS));
        assert!(from_names(["reference-types"]).contains(WasmFeatures::CALL_INDIRECT_OVERLONG));
        assert_eq!(from_names(["from-the-future"]), first(Kind::Component));
        assert_eq!(missing(features, from_names(["simd", "call-indirect-overlong"])), ["reference-types", "cm-async"]);
    }
}
