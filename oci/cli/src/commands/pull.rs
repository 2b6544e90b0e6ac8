use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::ensure;
use indicatif::HumanBytes;

use crate::{
    output::Output,
    pending::write_whole,
    reference::Reference,
    store::Store,
    transfer::{Platforms, extract_module, pull},
};

/// Pull an image from a registry into the local store
///
/// Of an image for several platforms, the one that Lighter would run: wasi/wasm, then wasip2/wasm, wasip1/wasm, wasi/wasm32,
/// linux/wasm, then this machine's. A pull that was interrupted goes on where it stopped.
/// Credentials are Docker's: `docker login HOST` first.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  lighter pull ghcr.io/me/hello:1
  lighter pull ghcr.io/me/hello:1 -o hello.wasm           and write its module to a file
  lighter pull ghcr.io/me/hello:1 -o - | wasm-tools print
  lighter pull localhost:5000/hello --platform wasip2/wasm"
)]
pub(crate) struct Args {
    /// The image: [REGISTRY/]NAME[:TAG][@DIGEST]
    reference: Reference,
    /// Write the image's module to a file, too; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Keep the image in the local store: so it is, with or without this
    #[arg(long)]
    store: bool,
    /// Of several platforms, pull this one, such as wasip2/wasm
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_platforms")]
    platform: Option<String>,
    /// Of several platforms, pull every one
    #[arg(long)]
    all_platforms: bool,
    /// Speak HTTP instead of HTTPS
    #[arg(long)]
    plain_http: bool,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let to_stdout = self.output.as_deref() == Some(Path::new("-"));
        ensure!(
            !(to_stdout && std::io::stdout().is_terminal()),
            "the module is binary, and standard output is a terminal; write it to a file or a pipe"
        );
        let store = Store::open()?;
        let platforms = Platforms::new(self.platform, self.all_platforms);
        let pulled = pull(&store, &self.reference, &platforms, self.plain_http, output).await?;
        let text = format!("{}\t{}", self.reference.pinned(&pulled.digest), HumanBytes(pulled.size));
        match &self.output {
            Some(_) if to_stdout => {
                extract_module(&store, &pulled.root, &mut std::io::stdout().lock()).await?;
                output.note(&text);
                return Ok(ExitCode::SUCCESS);
            }
            Some(path) => {
                write_whole(path, async |file| extract_module(&store, &pulled.root, file).await).await?;
            }
            None => (),
        }
        output.result(&pulled, |_| text);
        Ok(ExitCode::SUCCESS)
    }
}
