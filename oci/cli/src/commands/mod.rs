//! The commands, one a file.

use std::process::ExitCode;

use crate::output::Output;

/// What to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {}

impl Command {
    pub(crate) async fn run(self, _output: &Output) -> anyhow::Result<ExitCode> {
        match self {}
    }
}
