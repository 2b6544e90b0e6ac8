use std::process::ExitCode;

use serde::Serialize;

use crate::{output::Output, reference::Reference, store::Store};

/// Take names out of the store
///
/// What no name leads to any more goes with the next `lighter gc`.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:
  lighter rm hello ghcr.io/me/hello:1 && lighter gc"
)]
pub(crate) struct Args {
    /// The names: [REGISTRY/]NAME[:TAG]
    #[arg(required = true)]
    references: Vec<Reference>,
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
    missing: Vec<String>,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let mut done = Removed { removed: Vec::new(), missing: Vec::new() };
        for reference in &self.references {
            let list = if store.untag(reference)? { &mut done.removed } else { &mut done.missing };
            list.push(reference.to_string());
        }
        for missing in &done.missing {
            output.note(&format!("no image {missing} in the store; `lighter ls` lists what there is"));
        }
        output.result(&done, |done| done.removed.join("\n"));
        Ok(if done.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
