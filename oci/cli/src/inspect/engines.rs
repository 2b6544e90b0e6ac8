//! Which of the installed engines can run a binary, and why the others can't.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lighter_oci::Kind;
use lighter_runtime_api::{About, Supports};
use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::{Binary, Entry, Item, entry, features};

/// The engines that there are runners for, in the order in which people are told of them.
const ENGINES: &[&str] = &["wasmtime", "wasmedge", "wamr"];
/// Bytes that a runner may say of itself.
const MAX_ABOUT: u64 = 64 << 10;
/// A runner that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(10);
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

/// Asks every runner beside this executable.
pub(crate) async fn judge_installed(binary: &Binary) -> Vec<Engine> {
    let folder = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let mut engines = Vec::new();
    for name in ENGINES {
        let runner = folder.join(format!("lighter-{name}"));
        let (version, why_not) = match about(runner).await {
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
        Entry::Command => {}
        Entry::Http if gives_interface(engine, "wasi:http/incoming-handler") => {}
        Entry::Http => why.push("does not serve wasi:http; the component is no command".to_owned()),
        Entry::Missing(reason) => why.push(format!("finds no entry: it {reason}")),
    }
    why
}

/// Whether a module's import is there: the functions of WASI 0.1 are counted, others are known by their module only.
fn gives_import(engine: &Supports, item: &Item) -> bool {
    let module = item.module.as_deref().unwrap_or_default();
    let known = module != "wasi_snapshot_preview1" || WASI_0_1.contains(&item.name.as_str());
    known && engine.imports.iter().any(|provided| provided == module)
}

/// Whether a component's import is there. `worlds` are prefixes of interfaces, such as `wasi:cli/`; after an `@` may follow
/// how their versions begin, as in `wasi:cli/@0.2`.
fn gives_interface(engine: &Supports, name: &str) -> bool {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    engine.worlds.iter().any(|world| {
        let (prefix, versions) = world.split_once('@').unwrap_or((world, ""));
        let fits = versions.is_empty()
            || version.is_empty()
            || version.strip_prefix(versions).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        interface.starts_with(prefix) && fits
    })
}

fn whole_name(item: &Item) -> String {
    match &item.module {
        Some(module) => format!("{module}.{}", item.name),
        None => item.name.clone(),
    }
}

/// What a runner says of itself; `None` where there is none.
async fn about(runner: PathBuf) -> Result<Option<About>> {
    let name = runner.display().to_string();
    let mut command = tokio::process::Command::new(&runner);
    command.arg("about").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("start {name}")),
    };
    let answer = async {
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ABOUT).read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, answer))
    };
    let answered = tokio::time::timeout(PATIENCE, answer).await;
    let (status, answer) = match answered {
        Ok(answer) => answer.with_context(|| format!("ask {name}"))?,
        Err(_) => bail!("{name} does not answer; install it again"),
    };
    if !status.success() {
        bail!("`{name} about` failed ({status}); run it to see why, or install it again");
    }
    serde_json::from_slice(&answer)
        .map(Some)
        .with_context(|| format!("read what {name} says of itself; install it again"))
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
            "components": components, "imports": ["wasi_snapshot_preview1"],
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
            ("(module (memory i64 1))", &["lacks memory64", "finds no entry"]),
            (
                r#"(component (import "wasi:cli/exit@0.2.3" (instance $i)) (import "wasi:io/error@0.2.0" (instance))
                    (export "wasi:cli/run@0.2.3" (instance $i)))"#,
                &[],
            ),
            (
                r#"(component (import "wasi:cli/exit@0.3.0" (instance $i)) (import "wasi:keyvalue/store@0.2.0" (instance))
                    (export "wasi:cli/run@0.3.0" (instance $i)))"#,
                &["does not provide wasi:cli/exit@0.3.0, wasi:keyvalue/store@0.2.0"],
            ),
            (
                r#"(component (import "wasi:io/error@0.2.0" (instance $i))
                    (export "wasi:http/incoming-handler@0.2.0" (instance $i)))"#,
                &["does not serve wasi:http"],
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

    #[tokio::test]
    async fn a_runner_that_is_not_there_or_broken_is_told_apart() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let runner = |text: &str| {
            let path = folder.path().join("runner");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        assert!(about(folder.path().join("none")).await.unwrap().is_none());
        let sound = runner(
            "#!/bin/sh\necho '{\"name\":\"x\",\"version\":\"2\",\"components\":false,\"imports\":[],\"features\":[],\"worlds\":[]}'",
        );
        assert_eq!(about(sound).await.unwrap().unwrap().version, "2");
        for (text, expected) in [("#!/bin/sh\nexit 3", "failed"), ("#!/bin/sh\necho {", "says of itself")] {
            let error = format!("{:#}", about(runner(text)).await.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
