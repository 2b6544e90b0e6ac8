//! `lighter inspect`: what an image or a module is, who can run it, and what it would get.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    inspect::{self, Subject},
    output::Output,
};

/// Show what an image or a .wasm file is, which engines can run it, and what it would be granted
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lighter inspect hello.wasm
  lighter inspect ghcr.io/me/hello:1        from the local store, or else from the registry
  lighter inspect app.wasm --wit            with all interfaces of a component
  lighter inspect app.wasm --json | jq -r '.module.imports[].name'

Nothing is run. Engines are asked what they provide: those whose runners are installed beside lighter.")]
pub(crate) struct Args {
    /// A .wasm file, `-` for standard input, or an image
    #[arg(value_name = "IMAGE|FILE")]
    subject: String,
    /// Print the WIT of all interfaces of a component, not of its world alone
    #[arg(long)]
    wit: bool,
    /// Speak HTTP instead of HTTPS to the registry
    #[arg(long)]
    plain_http: bool,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> Result<ExitCode> {
        let subject = Subject::find(&self.subject, self.plain_http, output).await?;
        let has_image = subject.image.is_some();
        let (report, looked) = inspect::report(subject, self.wit).await;
        // Of a file that is no module there is nothing to tell but that.
        if looked.is_ok() || has_image {
            output.result(&report, inspect::text);
        }
        looked?;
        Ok(ExitCode::SUCCESS)
    }
}
