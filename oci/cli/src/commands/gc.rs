use std::process::ExitCode;

use indicatif::HumanBytes;

use crate::{output::Output, store::Store};

/// Remove from the store what no name leads to
///
/// Blobs without an image, and what interrupted pulls and builds left. Waits until no other lighter builds, pulls or pushes.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let removed = store.gc(|| output.note("waiting for another lighter that uses the store"))?;
        output.result(&removed, |removed| format!("removed {} files, {}", removed.blobs, HumanBytes(removed.bytes)));
        Ok(ExitCode::SUCCESS)
    }
}
