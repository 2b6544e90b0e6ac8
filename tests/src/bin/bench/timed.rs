//! The wall time of a command in a bed, without the time that it takes to get in.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use lighter_tests::Bed;
use serde::{Deserialize, Serialize};

/// This program in the bed.
const IN_BED: &str = "/usr/bin/lighter-bench";

/// What a command took and left.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Timed {
    /// From before its process is made until it has ended and closed its streams.
    pub(crate) milliseconds: f64,
    status: String,
    success: bool,
    stdout: String,
    stderr: String,
}

/// Puts this program where [`in_bed`] finds it.
pub(crate) fn install(bed: &Bed) -> Result<()> {
    let own = env::current_exe().context("find own executable")?;
    fs::copy(own, bed.path(IN_BED)).context("copy this program into the bed").map(drop)
}

/// Times a command, with an end of file for input. It must succeed and print `expected`.
pub(crate) fn in_bed(bed: &Bed, command: &[impl AsRef<OsStr>], expected: &str) -> Result<f64> {
    let mut argv: Vec<&OsStr> = [IN_BED, "time", "--"].map(OsStr::new).to_vec();
    argv.extend(command.iter().map(AsRef::as_ref));
    let output = bed.cmd(&argv).try_run()?;
    ensure!(output.status == 0, "{output}");
    let timed: Timed = serde_json::from_str(&output.stdout).context("decode what was timed")?;
    ensure!(timed.success && timed.stdout == expected, "not what was expected: {output}");
    Ok(timed.milliseconds)
}

/// The other end, inside the bed.
pub(crate) fn run(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output().with_context(|| format!("run {}", program.display()))?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let timed = Timed {
        milliseconds,
        status: output.status.to_string(),
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    println!("{}", serde_json::to_string(&timed).context("encode what was timed")?);
    Ok(())
}
