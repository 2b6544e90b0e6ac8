use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use crate::{output::Output, reference::Reference, store::Store};

/// Give an image of the store another name
#[derive(clap::Args)]
#[command(after_help = "Example:
  lighter tag hello ghcr.io/me/hello:1 && lighter push ghcr.io/me/hello:1")]
pub(crate) struct Args {
    /// The image: [REGISTRY/]NAME[:TAG][@DIGEST]
    source: Reference,
    /// Its further name: [REGISTRY/]NAME[:TAG]
    name: Reference,
}

#[derive(Serialize)]
struct Tagged {
    reference: String,
    digest: String,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let Some(root) = store.resolve(&self.source)? else {
            bail!("no image {} in the store; `lighter ls` lists what there is", self.source);
        };
        let digest = root.digest().to_string();
        store.tag(&self.name, root)?;
        let tagged = Tagged { reference: self.name.to_string(), digest };
        output.result(&tagged, |tagged| format!("{}\t{}", tagged.reference, tagged.digest));
        Ok(ExitCode::SUCCESS)
    }
}
