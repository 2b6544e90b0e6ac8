//! Gets native code for a module: from the cache, or from the engine's compiler, which is a process of its own.

use std::{
    env,
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use lighter_oci::{Cache, Entry, Key, Module, Plan};
use lighter_runtime_api::{Backend, Code, Compiler, Error as EngineError};

use crate::Error;

/// Loads the guest's module, compiling it first where the engine needs that and nobody did it before.
pub(crate) fn load<B: Backend>(backend: &B, plan: &Plan, mut module: Module) -> Result<B::Loaded, Error> {
    let identity = backend.identity();
    let path = module.path.clone();
    let refused = |source| Error::Load { module: path.clone(), source };
    let Some(compiler) = identity.compiler else {
        let code = Code { kind: module.kind, file: module.file, path: module.path };
        return backend.load(code, &plan.guest).map_err(refused);
    };
    let cache = Cache::open(&plan.cache, plan.cache_bytes)?;
    let digest = module.digest().map_err(|source| Error::ReadModule { path: module.path.clone(), source })?;
    let key = Key { fingerprint: compiler.fingerprint.clone(), digest };
    let entry = compiled(&cache, &key, &compiler, &module)?;
    match backend.load(code(module.kind, &entry)?, &plan.guest) {
        // Sound, but made by another engine or for another CPU: throw it away and make it here.
        Err(EngineError::StaleCode { .. }) if !entry.made => {
            cache.discard(&entry)?;
            let entry = compiled(&cache, &key, &compiler, &module)?;
            backend.load(code(module.kind, &entry)?, &plan.guest).map_err(refused)
        }
        loaded => loaded.map_err(refused),
    }
}

fn code(kind: lighter_oci::Kind, entry: &Entry) -> Result<Code, Error> {
    let file = entry.file.try_clone().map_err(|source| Error::ReadModule { path: entry.path.clone(), source })?;
    Ok(Code { kind, file, path: entry.path.clone() })
}

fn compiled(cache: &Cache, key: &Key, compiler: &Compiler, module: &Module) -> Result<Entry, Error> {
    cache.get_or_make(key, |output| run(compiler, module, output))
}

/// Runs the compiler: the module on its standard input, code to `output`. It bounds and seals itself.
fn run(compiler: &Compiler, module: &Module, output: &File) -> Result<(), Error> {
    let runner = env::current_exe().unwrap_or_default();
    let path = runner.with_file_name(compiler.program);
    let failed = |source| Error::RunCompiler { path: path.clone(), source };
    let result = Command::new(&path)
        .env_clear()
        .stdin(rewound(&module.file).map_err(failed)?)
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(Stdio::piped())
        .output()
        .map_err(failed)?;
    if result.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    let why = match (said.lines().last(), result.status.signal()) {
        (Some(line), None) => line.to_owned(),
        // An allocation failure aborts, the CPU limit sends SIGXCPU.
        (_, Some(signal)) => format!(
            "the compiler was ended by signal {signal}: the module needs more memory or time than a compilation may take"
        ),
        (None, None) => format!("the compiler ended with {}", result.status),
    };
    Err(Error::Compile { module: module.path.clone(), why })
}

fn rewound(mut file: &File) -> io::Result<File> {
    io::Seek::rewind(&mut file)?;
    file.try_clone()
}
