//! The commands, one a file.

mod build;
mod cache;
mod compile;
mod doctor;
mod engines;
mod gc;
mod inspect;
mod load;
mod ls;
mod pull;
mod push;
mod rm;
mod run;
mod save;
mod tag;

use std::process::ExitCode;

use crate::output::Output;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Run(run::Args),
    Build(build::Args),
    Inspect(inspect::Args),
    Push(push::Args),
    Pull(pull::Args),
    Save(save::Args),
    Load(load::Args),
    Tag(tag::Args),
    Ls(ls::Args),
    Rm(rm::Args),
    Gc(gc::Args),
    Compile(compile::Args),
    #[command(subcommand)]
    Cache(cache::Args),
    Engines(engines::Args),
    Doctor(doctor::Args),
}

impl Command {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => args.run(output).await,
            Self::Build(args) => args.run(output).await,
            Self::Inspect(args) => args.run(output).await,
            Self::Push(args) => args.run(output).await,
            Self::Pull(args) => args.run(output).await,
            Self::Save(args) => args.run(output).await,
            Self::Load(args) => args.run(output).await,
            Self::Tag(args) => args.run(output).await,
            Self::Ls(args) => args.run(output).await,
            Self::Rm(args) => args.run(output).await,
            Self::Gc(args) => args.run(output).await,
            Self::Compile(args) => args.run(output).await,
            Self::Cache(args) => args.run(output),
            Self::Engines(args) => args.run(output).await,
            Self::Doctor(args) => args.run(output).await,
        }
    }
}
