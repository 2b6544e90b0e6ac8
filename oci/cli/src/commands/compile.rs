//! `lighter compile`: fills the cache of compiled code ahead of the first start.

use std::{process::ExitCode, time::Instant};

use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};

use crate::{
    engines,
    output::Output,
    run::{self, Target},
};

/// Compile a module or an image's module ahead of its first start
///
/// The code goes where the shim and `lighter run` look for it: with root, into the node's cache. A node that is about to run
/// an image for the first time then starts it as quickly as for the hundredth.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lighter compile app.wasm
  sudo lighter compile ghcr.io/me/app:1       on a node, before its pods come")]
pub(crate) struct Args {
    /// A .wasm file, or an image: [REGISTRY/]NAME[:TAG][@DIGEST]
    #[arg(value_name = "FILE|REF", value_parser = Target::parse)]
    target: Target,
    /// Compile it for this engine; without it, for the one that /etc/lighter/config.toml names, or Wasmtime
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
}

/// What a runner says that it did.
#[derive(Debug, Deserialize)]
struct Filled {
    digest: String,
    made: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    engine: String,
    /// Of the module.
    digest: String,
    /// Whether it had to be done.
    compiled: bool,
    seconds: f64,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let begun = Instant::now();
        let engine = engines::choose(self.engine.as_deref(), None)?.engine;
        let answer = run::compile(&self.target, &engine, output).await?;
        let Filled { digest, made } = serde_json::from_slice(&answer)?;
        let took = begun.elapsed();
        let report = Report { engine, digest: format!("sha256:{digest}"), compiled: made, seconds: took.as_secs_f64() };
        output.result(&report, |report| match report.compiled {
            true => format!("{}\tcompiled for {} in {}", report.digest, report.engine, HumanDuration(took)),
            false => format!("{}\tis compiled for {} already", report.digest, report.engine),
        });
        Ok(ExitCode::SUCCESS)
    }
}
