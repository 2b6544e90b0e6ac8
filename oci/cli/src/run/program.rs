//! What is to be run: a file, or an image of the store's.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use lighter_oci::{
    Module, Source,
    image::{self, Process, sha256_of},
    sniff,
};
use oci_spec::image::Descriptor;

use crate::{
    output::Output,
    reference::Reference,
    store::Store,
    transfer::{self, Platforms},
};

/// A file's path or an image's name, as the command line gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    File(PathBuf),
    Image(Reference),
}

impl Target {
    /// A file that is there is meant, and so is what can only be a path.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let path = Path::new(text);
        let looks_like_path = text.starts_with(['/', '.']) || path.extension() == Some(OsStr::new("wasm"));
        if looks_like_path || path.is_file() {
            return Ok(Self::File(path.to_owned()));
        }
        text.parse().map(Self::Image).map_err(|error: crate::reference::ParseReferenceError| error.to_string())
    }
}

/// What is to be run, opened.
#[derive(Debug)]
pub(crate) struct Program {
    /// What to call it where nobody named it.
    pub(crate) name: String,
    /// Where the module is.
    pub(crate) module: Source,
    /// Layers of files, the lowest first.
    pub(crate) layers: Vec<File>,
    /// How the image says that it starts.
    pub(crate) process: Process,
    /// Keeps the store's garbage collector away from the module.
    _kept: Option<Store>,
}

impl Program {
    /// Opens it; an image that isn't in the store is pulled.
    pub(crate) async fn open(target: &Target, output: &Output) -> Result<Self> {
        match target {
            Target::File(path) => Self::of_file(path),
            Target::Image(reference) => Self::of_image(reference, output).await,
        }
    }

    fn of_file(path: &Path) -> Result<Self> {
        let named = || path.display().to_string();
        let path = std::fs::canonicalize(path).with_context(|| format!("open {}", named()))?;
        let file = File::open(&path).with_context(|| format!("open {}", named()))?;
        if !file.metadata().with_context(|| format!("look at {}", named()))?.is_file() {
            bail!("{} is not a file", named());
        }
        let mut head = Vec::with_capacity(16);
        file.take(16).read_to_end(&mut head).with_context(|| format!("read {}", named()))?;
        if let Err(what) = sniff(&head) {
            bail!("{} {what}", named());
        }
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or("module.wasm").to_owned();
        let module = Source::File { path, digest: None };
        Ok(Self { name, module, layers: Vec::new(), process: Process::default(), _kept: None })
    }

    async fn of_image(reference: &Reference, output: &Output) -> Result<Self> {
        let store = Store::open()?;
        store.keep()?;
        let root = match store.resolve(reference)? {
            Some(root) => root,
            None => {
                output.note(&format!("{reference} is not in the store, pulling it"));
                transfer::pull(&store, reference, &Platforms::Best, false, output).await?.root
            }
        };
        let image = image::resolve(&store, &root).await.with_context(|| format!("{reference}"))?;
        let open = |blob: &Descriptor| {
            let missing =
                || format!("blob {} of {reference} is gone from the store; `lighter pull {reference}`", blob.digest());
            store.open_blob(blob.digest().as_ref())?.with_context(missing)
        };
        let module = match &image.module {
            None => Source::Rootfs,
            Some(blob) => {
                let expected = sha256_of(blob.digest())?;
                // What is in the store was compared when it came. Code is cached under this name, so compare again.
                let found =
                    Module::of_file(open(blob)?, &reference.to_string(), None)?.digest().context("read module")?;
                if found != expected {
                    bail!("blob sha256:{expected} in the store is damaged; `lighter pull {reference}`");
                }
                Source::File { path: store.blob_path(blob.digest().as_ref())?, digest: Some(found) }
            }
        };
        let layers = image.layers.iter().map(open).collect::<Result<_>>()?;
        let name = reference.repository().rsplit('/').next().unwrap_or("module").to_owned();
        Ok(Self { name, module, layers, process: image.process, _kept: Some(store) })
    }

    /// The whole command line: the image's entrypoint, and its arguments unless others are given, as in Docker.
    pub(crate) fn command(&self, entrypoint: Option<&str>, args: &[String]) -> Result<Vec<String>> {
        let Process { entrypoint: own, cmd, .. } = &self.process;
        let mut command = match entrypoint {
            Some(entrypoint) => vec![entrypoint.to_owned()],
            None => own.clone(),
        };
        if !args.is_empty() {
            command.extend_from_slice(args);
        } else if entrypoint.is_none() {
            command.extend_from_slice(cmd);
        }
        // The module is known, so what is given are arguments.
        if own.is_empty()
            && entrypoint.is_none()
            && self.module != Source::Rootfs
            && (!args.is_empty() || cmd.is_empty())
        {
            command.insert(0, self.name.clone());
        }
        if command.is_empty() {
            bail!("the image says of no file that it is the program; name one with --entrypoint");
        }
        Ok(command)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_and_images_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("hello");
        std::fs::write(&there, "").unwrap();
        for text in ["hello.wasm", "./hello", "../x", "/x/y", there.to_str().unwrap()] {
            assert_eq!(Target::parse(text), Ok(Target::File(text.into())));
        }
        for text in ["hello", "ghcr.io/me/hello:1", "localhost:5000/x"] {
            assert!(matches!(Target::parse(text), Ok(Target::Image(_))), "{text}");
        }
        assert!(Target::parse("Not An Image").is_err());
    }

    #[test]
    fn arguments_replace_the_images_own() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let file = || Source::File { path: "/x".into(), digest: None };
        // Where the module is, the image's entrypoint and cmd, what is given, and the outcome.
        let table = [
            (file(), "", "", None, "", Some("hello")),
            (file(), "", "", None, "a b", Some("hello a b")),
            (file(), "", "", Some("x"), "a", Some("x a")),
            (file(), "/app", "c", None, "", Some("/app c")),
            (file(), "/app", "c", None, "a", Some("/app a")),
            (file(), "", "/app c", None, "", Some("/app c")),
            (file(), "", "/app c", None, "a", Some("hello a")),
            (Source::Rootfs, "/app", "c", None, "", Some("/app c")),
            (Source::Rootfs, "/app", "c", None, "a", Some("/app a")),
            (Source::Rootfs, "/app", "c", Some("/b"), "", Some("/b")),
            (Source::Rootfs, "", "/app c", None, "", Some("/app c")),
            (Source::Rootfs, "", "/app c", None, "/b", Some("/b")),
            (Source::Rootfs, "", "", None, "", None),
        ];
        for (module, own, cmd, entrypoint, args, expected) in table {
            let process = Process { entrypoint: words(own), cmd: words(cmd), ..Process::default() };
            let program = Program { name: "hello".to_owned(), module, layers: Vec::new(), process, _kept: None };
            let command = program.command(entrypoint, &words(args)).ok();
            assert_eq!(command, expected.map(words), "{program:?} {entrypoint:?} {args}");
        }
    }
}
