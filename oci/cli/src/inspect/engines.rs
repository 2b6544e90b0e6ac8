//! Which of the installed engines can run a binary, and why the others can't.

use lighter_oci::Kind;
use lighter_runtime_api::Supports;
use serde::Serialize;

use super::{Binary, Entry, Item, entry, features};
use crate::engines;

/// Imports that a reason names before it counts the rest.
const NAMED: usize = 3;

/// An engine and what it makes of a binary.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Engine {
    pub(crate) name: String,
    /// None where it isn't installed or doesn't answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    pub(crate) runs: bool,
    /// Why it doesn't.
    pub(crate) why_not: Vec<String>,
}

/// What every engine makes of a binary.
pub(crate) async fn judge_installed(binary: &Binary) -> Vec<Engine> {
    let mut engines = Vec::new();
    for name in engines::ENGINES {
        let about = match engines::runner(name) {
            Some(runner) => engines::about(&runner).await,
            None => Ok(None),
        };
        let (version, why_not) = match about {
            Ok(Some(about)) => (Some(about.version), judge(binary, &about.supports)),
            Ok(None) => (None, vec!["not installed".to_owned()]),
            Err(error) => (None, vec![format!("{error:#}")]),
        };
        engines.push(Engine { name: (*name).to_owned(), version, runs: why_not.is_empty(), why_not });
    }
    engines
}

/// Why this engine can't run the binary; nothing if it can.
fn judge(binary: &Binary, engine: &Supports) -> Vec<String> {
    let mut why = Vec::new();
    if binary.kind == Kind::Component && !engine.components {
        // Nothing that follows is said of components by an engine without them.
        return vec!["runs core modules only, not components; build it for wasm32-wasip1".to_owned()];
    }
    let provided = features::from_names(engine.features.iter().map(String::as_str));
    let missing = features::missing(binary.needed, provided);
    if !missing.is_empty() {
        why.push(format!("lacks {}", missing.join(", ")));
    }
    let unknown: Vec<String> = match binary.kind {
        Kind::Module => binary.imports.iter().filter(|item| !gives_import(engine, item)).map(whole_name).collect(),
        Kind::Component => {
            // A type is no demand: it comes with the interface that it is of.
            let needed = binary.imports.iter().filter(|item| item.ty != "type");
            needed.filter(|item| !gives_interface(engine, &item.name)).map(whole_name).collect()
        }
    };
    if let Some(more) = unknown.len().checked_sub(NAMED).filter(|more| *more > 0) {
        why.push(format!("does not provide {} and {more} more", unknown[..NAMED].join(", ")));
    } else if !unknown.is_empty() {
        why.push(format!("does not provide {}", unknown.join(", ")));
    }
    match entry(binary) {
        Entry::Missing(reason) => why.push(format!("finds no entry: it {reason}")),
        found => {
            let called = binary.exports.iter().filter(|item| item.ty == "instance").map(|item| &*item.name);
            let called: Vec<_> = called.filter(|name| found.interfaces().contains(&interface(name))).collect();
            if !called.is_empty() && !called.iter().any(|name| gives_interface(engine, name)) {
                why.push(format!("does not call {}", called.join(", ")));
            }
        }
    }
    why
}

/// Whether a module's import is there: by its module or by its whole name. Of WASI 0.1, a module's name stands for the
/// functions that it was published with, so that an engine names what it adds.
fn gives_import(engine: &Supports, item: &Item) -> bool {
    let module = item.module.as_deref().unwrap_or_default();
    let is_published = module != "wasi_snapshot_preview1" || WASI_0_1.contains(&item.name.as_str());
    let name = whole_name(item);
    engine.imports.iter().any(|provided| *provided == name || (is_published && provided == module))
}

/// Whether a component's import is there. `worlds` are prefixes of interfaces, such as `wasi:cli/`; after an `@` may follow
/// how their versions begin, as in `wasi:cli/@0.2`.
fn gives_interface(engine: &Supports, name: &str) -> bool {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    engine.worlds.iter().any(|world| {
        let (prefix, versions) = world.split_once('@').unwrap_or((world, ""));
        let fits = versions.is_empty()
            || version.is_empty()
            || version.strip_prefix(versions).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        interface(name).starts_with(prefix) && fits
    })
}

/// A name without its version.
pub(super) fn interface(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn whole_name(item: &Item) -> String {
    match &item.module {
        Some(module) => format!("{module}.{}", item.name),
        None => item.name.clone(),
    }
}

/// The functions of `wasi_snapshot_preview1`. Source: WASI repository, `legacy/preview1/witx`.
const WASI_0_1: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn engine(components: bool) -> Supports {
        let worlds: &[&str] = if components { &["wasi:cli/@0.2", "wasi:io/"] } else { &[] };
        serde_json::from_value(serde_json::json!({
            "components": components, "imports": ["wasi_snapshot_preview1", "wasi.thread-spawn"],
            "features": ["bulk-memory", "reference-types", "sign-extension"], "worlds": worlds,
        }))
        .unwrap()
    }

    #[test]
    fn tells_why_an_engine_can_not_run_it() {
        let table: &[(&str, &[&str])] = &[
            (r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (func (export "_start")))"#, &[]),
            (r#"(module (table 1 externref) (func (export "_start")))"#, &[]),
            (r#"(module (func (export "_start")) (func (param v128)))"#, &["lacks simd"]),
            (r#"(module (import "env" "f" (func)) (func (export "_start")))"#, &["does not provide env.f"]),
            (
                r#"(module (import "a" "1" (func)) (import "a" "2" (func)) (import "a" "3" (func)) (import "a" "4" (func))
                    (func (export "_start")))"#,
                &["does not provide a.1, a.2, a.3 and 1 more"],
            ),
            (
                r#"(module (import "wasi_snapshot_preview1" "sock_open" (func)) (func (export "_start")))"#,
                &["does not provide wasi_snapshot_preview1.sock_open"],
            ),
            (r#"(module (import "wasi" "thread-spawn" (func)) (func (export "_start")))"#, &[]),
            (
                r#"(module (import "wasi" "thread-join" (func)) (func (export "_start")))"#,
                &["does not provide wasi.thread-join"],
            ),
            ("(module (memory i64 1))", &["lacks memory64", "finds no entry"]),
            (
                r#"(component (import "wasi:cli/exit@0.2.3" (instance $i)) (import "wasi:io/error@0.2.0" (instance))
                    (export "wasi:cli/run@0.2.3" (instance $i)))"#,
                &[],
            ),
            (
                r#"(component (import "wasi:cli/exit@0.3.0" (instance $i)) (import "wasi:keyvalue/store@0.2.0" (instance))
                    (export "wasi:cli/run@0.3.0" (instance $i)))"#,
                &[
                    "does not provide wasi:cli/exit@0.3.0, wasi:keyvalue/store@0.2.0",
                    "does not call wasi:cli/run@0.3.0",
                ],
            ),
            (
                r#"(component (import "wasi:io/error@0.2.0" (instance $i))
                    (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
                &["does not call wasi:http/incoming-handler@0.2.0"],
            ),
        ];
        for (text, expected) in table {
            let binary = Binary::parse("test", &wat::parse_str(text).unwrap()).unwrap();
            let why = judge(&binary, &engine(true));
            assert_eq!(why.len(), expected.len(), "{text}: {why:?}");
            for (why, expected) in why.iter().zip(*expected) {
                assert!(why.starts_with(expected), "{text}: {why}");
            }
        }
    }

    #[test]
    fn an_engine_without_components_says_so_and_nothing_else() {
        let binary =
            Binary::parse("test", &wat::parse_str(r#"(component (import "x:y/z" (instance)))"#).unwrap()).unwrap();
        let why = judge(&binary, &engine(false));
        assert!(why.len() == 1 && why[0].contains("not components"), "{why:?}");
    }
}
