//! The commands, one a file.

mod gc;
mod load;
mod ls;
mod pull;
mod push;
mod rm;
mod save;
mod tag;

use std::process::ExitCode;

use crate::output::Output;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Push(push::Args),
    Pull(pull::Args),
    Save(save::Args),
    Load(load::Args),
    Tag(tag::Args),
    Ls(ls::Args),
    Rm(rm::Args),
    Gc(gc::Args),
}

impl Command {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Push(args) => args.run(output).await,
            Self::Pull(args) => args.run(output).await,
            Self::Save(args) => args.run(output).await,
            Self::Load(args) => args.run(output).await,
            Self::Tag(args) => args.run(output).await,
            Self::Ls(args) => args.run(output).await,
            Self::Rm(args) => args.run(output).await,
            Self::Gc(args) => args.run(output).await,
        }
    }
}
