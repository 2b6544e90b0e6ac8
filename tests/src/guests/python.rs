//! Python by componentize-py, which brings CPython. Downloaded from PyPI.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use anyhow::{Context, Result};

use super::{Set, javascript, named_after, pip, run, sources};

pub(super) static PYTHON: Set = Set {
    name: "python",
    sources: &["python", "wit"],
    tools: || Ok(include_bytes!("python.rs").to_vec()),
    install: || {
        pip::package(PACKAGE)?;
        javascript::JAVASCRIPT.folder().map(drop)
    },
    build,
    built: OnceLock::new(),
};

const PACKAGE: &str = "componentize-py==0.25.1";

fn build(folder: &Path) -> Result<()> {
    let site_packages = pip::package(PACKAGE)?;
    let temporary = tempfile::tempdir()?;
    let wit = temporary.path().join("wit");
    javascript::wit(&wit)?;
    for source in sources("python", "py")? {
        let name = source.file_stem().with_context(|| format!("name of {}", source.display()))?;
        // Imported from a copy: Python leaves its bytecode beside what it imports.
        let copy = temporary.path().join(name).with_extension("py");
        fs::copy(&source, &copy).with_context(|| format!("copy {}", source.display()))?;
        let world = if name == "serve" { "handler" } else { "command" };
        let mut command = Command::new("python3");
        // Its own start script names a folder that has moved.
        command.args(["-c", "from componentize_py import script; script()"]).env("PYTHONPATH", &site_packages);
        command.arg("--quiet").arg("--wit-path").arg(&wit).args(["--world", world, "componentize"]);
        command.arg("--python-path").arg(temporary.path()).arg("--output").arg(named_after(&source, folder)?).arg(name);
        run(&mut command)?;
    }
    Ok(())
}
