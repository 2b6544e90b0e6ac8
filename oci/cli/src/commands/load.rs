use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::ensure;

use crate::{
    output::Output,
    reference::Reference,
    store::Store,
    transfer::{load, load_path},
};

/// Take images from an archive into the local store
///
/// A folder in OCI's image layout or a tar archive of one, plain, gzip or zstd: what `lighter save`, `docker save` (25 or
/// newer), `docker buildx build -o type=oci`, `ctr images export` and `skopeo copy ... oci-archive:` write. Every blob is
/// compared with its digest.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  lighter load -i hello.tar
  lighter load -i layout-folder --tag me/hello:1           for a layout that names no image
  docker save hello | lighter load"
)]
pub(crate) struct Args {
    /// The archive or folder; without it, standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Give the one image in it this name
    #[arg(short, long, value_name = "NAME")]
    tag: Option<Reference>,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let name = self.tag.as_ref();
        let loaded = match self.input.filter(|path| path != Path::new("-")) {
            Some(path) => load_path(&store, &path, name)?,
            None => {
                let stdin = std::io::stdin();
                ensure!(!stdin.is_terminal(), "standard input is a terminal; name an archive with -i, or pipe one in");
                load(&store, stdin.lock(), name)?
            }
        };
        output.result(&loaded, |loaded| {
            let lines: Vec<String> = loaded.iter().map(|one| format!("{}\t{}", one.reference, one.digest)).collect();
            lines.join("\n")
        });
        Ok(ExitCode::SUCCESS)
    }
}
