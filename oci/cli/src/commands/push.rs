use std::process::ExitCode;

use indicatif::HumanBytes;

use crate::{
    output::Output,
    reference::Reference,
    store::Store,
    transfer::{Platforms, push},
};

/// Push an image to its registry
///
/// What the registry has is not sent again; blobs that another repository there is known to have are taken over from it.
/// Credentials are Docker's: `docker login HOST` first. Registries of this machine speak plain HTTP unless a CA is there for
/// them, in /etc/docker/certs.d/HOST:PORT/ca.crt.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  lighter push ghcr.io/me/hello:1
  lighter push localhost:5000/hello
  lighter tag hello ghcr.io/me/hello:2 && lighter push ghcr.io/me/hello:2"
)]
pub(crate) struct Args {
    /// The image, and where it goes: [REGISTRY/]NAME[:TAG]
    reference: Reference,
    /// Push this one of several platforms, such as wasi/wasm
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Speak HTTP instead of HTTPS
    #[arg(long)]
    plain_http: bool,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let platforms = Platforms::new(self.platform, false);
        let pushed = push(&store, &self.reference, &platforms, self.plain_http, output).await?;
        output.result(&pushed, |pushed| {
            format!("{}\t{}", self.reference.pinned(&pushed.digest), HumanBytes(pushed.size))
        });
        Ok(ExitCode::SUCCESS)
    }
}
