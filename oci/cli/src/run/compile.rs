//! Has a runner compile a module that nobody runs yet.

use std::{fs::File, path::Path, process::Stdio};

use anyhow::{Context, Result, bail};
use lighter_launch::end_strangers;
use lighter_oci::{Module, Source};
use tokio::process::Command;

use super::{
    cache_folder,
    folder::RunFolder,
    layers::RootFolder,
    program::{Program, Target},
    signals::Signals,
};
use crate::{engines, output::Output};

/// Fills the cache with a module's code for an engine. Returns what its runner says of that, as JSON.
///
/// # Errors
/// No such image or file, no such engine, or the compiler refuses the module.
pub(crate) async fn compile(target: &Target, engine: &str, output: &Output) -> Result<Vec<u8>> {
    let runner = engines::chosen(engine)?;
    let mut signals = Signals::new()?;
    let folder = RunFolder::new()?;
    let filled = signals.unless(async { fill(&runner, module(&folder, target, output).await?).await }).await;
    end_strangers();
    folder.remove()?;
    match filled {
        Ok(answer) => answer,
        Err(signal) => bail!("ended by signal {}; nothing was compiled", signal.as_raw()),
    }
}

/// Opens the module: of an image with a root filesystem, the entrypoint in that.
async fn module(folder: &RunFolder, target: &Target, output: &Output) -> Result<File> {
    let mut program = Program::open(target, output).await?;
    match &program.module {
        Source::File { path, .. } => File::open(path).with_context(|| format!("open {}", path.display())),
        Source::Rootfs | Source::Image(_) => {
            RootFolder::new(&folder.rootfs())?.add_all(&mut program.layers).await?;
            let command = program.command(None, &[])?;
            let entrypoint = command.first().context("the image has no entrypoint")?;
            let cwd = Path::new("/").join(&program.process.workdir);
            let path = program.process.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
            Ok(Module::find(&folder.rootfs(), entrypoint, &cwd, path)?.file)
        }
    }
}

async fn fill(runner: &Path, module: File) -> Result<Vec<u8>> {
    let (bytes, compilers) = engines::cache_bounds()?;
    let compilers = compilers.map(|most| ["--compilers".to_owned(), most.to_string()]);
    let compiled = Command::new(runner)
        .arg("compile")
        .args(compilers.iter().flatten())
        .args(["--cache-bytes", &bytes.to_string(), "--cache"])
        .arg(cache_folder()?)
        .env_clear()
        .current_dir("/")
        .stdin(module)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("run {}", runner.display()))?;
    if !compiled.status.success() {
        let said = String::from_utf8_lossy(&compiled.stderr);
        match said.lines().last() {
            Some(line) => bail!("{line}"),
            None => bail!("{} ended with {}", runner.display(), compiled.status),
        }
    }
    Ok(compiled.stdout)
}
