//! How a guest will be run, by what it exports: its code is made for that.

use anyhow::Result;
use lighter_oci::Kind;
use lighter_wasmtime_engine::Profile;
use wasmparser::{Parser, Payload};

/// The interface of a handler for WASI 0.2. Source: the WASI repository, `wasi:http` 0.2, world `proxy`.
const HANDLER: &str = "wasi:http/incoming-handler@";
/// The interface of a handler for WASI 0.3. Source: the WASI repository, `wasi:http` 0.3, world `service`.
const ASYNC_HANDLER: &str = "wasi:http/handler@";
/// Interfaces of WASI 0.3 are asynchronous, also where a handler for 0.2 imports them.
const ASYNC_VERSION: &str = "@0.3";

/// Looks at what the outermost component imports and exports.
///
/// # Errors
/// The bytes are no component.
pub(crate) fn profile_of(kind: Kind, bytes: &[u8]) -> Result<Profile> {
    if kind == Kind::Module {
        return Ok(Profile::Command);
    }
    let (mut depth, mut handles, mut is_async, mut commands) = (0_u32, false, false, false);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            // A nested module or component: all until its end is its own matter.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    is_async |= import?.name.name.contains(ASYNC_VERSION);
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    let name = export?.name.name;
                    handles |= name.starts_with(HANDLER) || name.starts_with(ASYNC_HANDLER);
                    is_async |= name.starts_with(ASYNC_HANDLER);
                    commands |= name.starts_with("wasi:cli/run@");
                }
            }
            _ => {}
        }
    }
    Ok(match (handles && !commands, is_async) {
        (false, _) => Profile::Command,
        (true, false) => Profile::Handler,
        (true, true) => Profile::AsyncHandler,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn exports_decide() {
        let instance = "(component (instance $i)";
        let table = [
            ("(component", Profile::Command),
            (r#"(export "wasi:cli/run@0.2.3" (instance $i))"#, Profile::Command),
            (r#"(export "wasi:http/incoming-handler@0.2.0" (instance $i))"#, Profile::Handler),
            (r#"(export "wasi:http/handler@0.3.0" (instance $i))"#, Profile::AsyncHandler),
            (
                r#"(import "wasi:clocks/monotonic-clock@0.3.0" (instance))
                   (export "wasi:http/incoming-handler@0.2.0" (instance $i))"#,
                Profile::AsyncHandler,
            ),
            // It runs as what it says first of all: a program.
            (
                r#"(export "wasi:http/incoming-handler@0.2.0" (instance $i))
                   (export "wasi:cli/run@0.2.0" (instance $i))"#,
                Profile::Command,
            ),
            // Of a component inside.
            (
                r#"(component (instance $j) (export "wasi:http/incoming-handler@0.2.0" (instance $j)))"#,
                Profile::Command,
            ),
        ];
        for (text, expected) in table {
            let text = if text == "(component" { "(component)".to_owned() } else { format!("{instance} {text})") };
            let bytes = wat::parse_str(&text).unwrap();
            assert_eq!(profile_of(Kind::Component, &bytes).unwrap(), expected, "{text}");
        }
        assert_eq!(profile_of(Kind::Module, b"").unwrap(), Profile::Command);
        assert!(profile_of(Kind::Component, b"\0asm\x0d\0\x01\0\x07\xff").is_err());
    }
}
