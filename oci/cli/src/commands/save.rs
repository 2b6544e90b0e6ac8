use std::{
    io::{BufWriter, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::ensure;

use crate::{
    output::Output,
    pending::write_whole,
    reference::Reference,
    store::Store,
    transfer::{Platforms, save},
};

/// Write images to an archive that other tools take
///
/// An OCI image layout in a tar archive. The same images give the same bytes.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  lighter save hello -o hello.tar
  ctr images import --platform wasi/wasm hello.tar
  docker load -i hello.tar
  lighter save hello | ssh node lighter load"
)]
pub(crate) struct Args {
    /// The images: [REGISTRY/]NAME[:TAG]
    #[arg(required = true)]
    references: Vec<Reference>,
    /// The archive; without it, standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save this one of several platforms, such as wasi/wasm
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let platforms = Platforms::new(self.platform, false);
        match self.output.filter(|path| path != Path::new("-")) {
            None => {
                let stdout = std::io::stdout();
                ensure!(
                    !stdout.is_terminal(),
                    "an archive is binary, and standard output is a terminal; write it to a file with -o, or to a pipe"
                );
                save(&store, &self.references, &platforms, BufWriter::new(stdout.lock())).await?;
            }
            Some(path) => {
                let saved = write_whole(&path, async |file| {
                    save(&store, &self.references, &platforms, BufWriter::new(file)).await
                })
                .await?;
                output.result(&saved, |saved| {
                    let lines: Vec<String> =
                        saved.iter().map(|one| format!("{}\t{}", one.reference, one.digest)).collect();
                    lines.join("\n")
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
