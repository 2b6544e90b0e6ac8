//! `containerd-shim-lighter-v1`: what containerd runs to have a WebAssembly container run.
//!
//! One executable, four actions. `start` and `delete` are containerd's, short-lived; `serve` is the daemon that `start`
//! leaves behind, one a pod; `-info` tells what the runtime is. Two more are the daemon's own: [`pod::ACTION`] and
//! [`users::ACTION`]. No engine is linked: runners are executables beside this.
//! Must not know: engines, image formats.

mod bootstrap;
mod bound;
mod cgroup;
mod cleanup;
mod daemon;
mod error;
mod events;
mod execs;
mod executable;
mod features;
mod freezer;
mod logger;
mod logging;
mod oom;
mod options;
mod pod;
mod rootfs;
mod runner;
mod sandbox;
mod service;
mod start;
mod stats;
mod stdio;
mod tasks;
mod terminal;
mod update;
mod users;
mod watch;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::{Context, Result};
use containerd_shim::Flags;
use containerd_shim_protos::{
    protobuf::Message,
    types::introspection::{RuntimeInfo, RuntimeVersion},
};
use lighter_runtime_api::COMMIT;

const HELP: &str = "\
Runs WebAssembly containers under containerd. containerd starts it; people name it as a runtime:

  docker run --rm --runtime io.containerd.lighter.v1 --platform wasi/wasm IMAGE
  ctr run --rm --runtime io.containerd.lighter.v1 --platform wasi/wasm IMAGE NAME

It must be on containerd's PATH, with the programs that it starts (lighter-wasmtime, lighter-compile, lighter-fetch,
lighter-native, and what other engines have) beside it.

Actions of containerd: start, delete, -info. See also: -v";

fn main() -> ExitCode {
    let mut args = env::args();
    let argv0 = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    if matches!(args.as_slice(), [only] if only == "--help" || only == "-h" || only == "-help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    if matches!(args.as_slice(), [only] if only == pod::ACTION) {
        return match pod::run() {
            Ok(()) => ExitCode::SUCCESS,
            // Nobody reads it; the daemon sees that no byte came.
            Err(_) => ExitCode::FAILURE,
        };
    }
    if matches!(args.as_slice(), [only] if only == users::ACTION) {
        return match users::run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let flags = match containerd_shim::parse(&args) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("{argv0}: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&argv0, &flags) {
        Ok(code) => code,
        Err(error) => {
            // containerd puts this into its own error, which is what `docker run` shows.
            eprintln!("lighter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(argv0: &str, flags: &Flags) -> Result<ExitCode> {
    match flags.action.as_str() {
        _ if flags.version => println!("containerd-shim-lighter-v1 {} ({COMMIT})", env!("CARGO_PKG_VERSION")),
        _ if flags.info => info(argv0)?,
        "start" => start::run(argv0, flags)?,
        "delete" => cleanup::run(flags)?,
        daemon::ACTION => daemon::run(argv0, flags)?,
        _ => {
            eprintln!("{HELP}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers `-info`, which containerd asks since 2.2 before each Create. The runtime options on stdin change nothing.
fn info(argv0: &str) -> Result<()> {
    bootstrap::read_stdin().context("read runtime options")?;
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: COMMIT.to_owned(),
        ..RuntimeVersion::default()
    };
    let features = features::any().context("tell the features")?;
    let info = RuntimeInfo {
        name: argv0.to_owned(),
        version: Some(version).into(),
        features: Some(features).into(),
        ..RuntimeInfo::default()
    };
    let bytes = info.write_to_bytes().context("encode runtime info")?;
    io::stdout().write_all(&bytes).context("answer containerd")
}
