//! The module out of an image.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use lighter_oci::image::{self, Image};
use oci_spec::image::Descriptor;
use tar::EntryType;

use super::archive::{Bounded, MAX_UNPACKED, decompressed, plain, visit};
use crate::store::{Hashed, Store};

/// Writes the module of the image that Lighter would run of those behind `root`: its layer, or the entrypoint's file.
///
/// # Errors
/// No image for this machine, no module in it, or what should be one isn't.
pub(crate) async fn extract_module(store: &Store, root: &Descriptor, writer: &mut dyn Write) -> Result<u64> {
    let image = image::resolve(store, root).await?;
    let Some(module) = &image.module else { return from_files(store, &image, writer) };
    let mut reader = Hashed::new(open(store, module)?);
    let size = io::copy(&mut Sniffed::new(&mut reader, "the layer"), writer).context("write module")?;
    ensure!(
        reader.digest() == module.digest().as_ref(),
        "blob {} in the store is damaged; pull the image again",
        module.digest()
    );
    Ok(size)
}

/// The entrypoint's file, from the highest layer that has it.
fn from_files(store: &Store, image: &Image, writer: &mut dyn Write) -> Result<u64> {
    let process = &image.process;
    let Some(entrypoint) = process.entrypoint.first().or(process.cmd.first()) else {
        bail!("the image has no entrypoint, so nothing says which of its files is the module");
    };
    let path = plain(&Path::new(&process.workdir).join(entrypoint)).context("entrypoint")?;
    let mut left = MAX_UNPACKED;
    for layer in image.layers.iter().rev() {
        let files = Bounded { reader: decompressed(open(store, layer)?)?, left: &mut left };
        let found = in_layer(files, &path, writer).with_context(|| format!("layer {}", layer.digest()))?;
        match found {
            Some(Found::Module(size)) => return Ok(size),
            Some(Found::Removed) => break,
            None => (),
        }
    }
    bail!("entrypoint {} is not in the image's layers", path.display())
}

/// What a layer says about a file.
enum Found {
    /// It is there and was written: its size.
    Module(u64),
    /// It isn't there any more, whatever the layers below have.
    Removed,
}

fn in_layer(layer: impl Read, path: &Path, writer: &mut dyn Write) -> Result<Option<Found>> {
    let whiteouts = whiteouts(path);
    // A whiteout hides what is in lower layers, wherever in its layer it comes.
    let mut removed = false;
    let found = visit(layer, |entry, kind, reader| {
        if whiteouts.iter().any(|whiteout| whiteout == entry) {
            removed = true;
        }
        if entry != path {
            return Ok(ControlFlow::Continue(()));
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let size = io::copy(&mut Sniffed::new(reader, "the entrypoint"), writer).context("write module")?;
                Ok(ControlFlow::Break(Found::Module(size)))
            }
            EntryType::Symlink | EntryType::Link => {
                bail!("entrypoint {} is a link; only files are taken out of images", path.display())
            }
            _ => bail!("entrypoint {} is not a regular file", path.display()),
        }
    })?;
    Ok(found.or(removed.then_some(Found::Removed)))
}

/// The files that, in a layer, say that `path` or a folder above it is gone or was emptied.
/// Source: OCI image-spec, `layer.md`, "Whiteouts".
fn whiteouts(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (path, folder) in path.ancestors().filter_map(|path| Some((path, path.parent()?))) {
        if let Some(name) = path.file_name() {
            let mut whiteout = std::ffi::OsString::from(".wh.");
            whiteout.push(name);
            files.push(folder.join(whiteout));
            files.push(folder.join(".wh..wh..opq"));
        }
    }
    files
}

fn open(store: &Store, blob: &Descriptor) -> Result<File> {
    store.open_blob(blob.digest().as_ref())?.with_context(|| {
        format!("blob {} is not in the store {}; pull the image again", blob.digest(), store.root().display())
    })
}

/// Fails at its end if what was read is not WebAssembly.
struct Sniffed<'a> {
    reader: &'a mut dyn Read,
    what: &'static str,
    head: Vec<u8>,
}

impl<'a> Sniffed<'a> {
    fn new(reader: &'a mut dyn Read, what: &'static str) -> Self {
        Self { reader, what, head: Vec::new() }
    }
}

impl Read for Sniffed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const HEAD: usize = 16;
        let read = self.reader.read(buffer)?;
        let rest = HEAD.saturating_sub(self.head.len());
        self.head.extend_from_slice(&buffer[..read.min(rest)]);
        if read == 0 {
            lighter_oci::sniff(&self.head).map_err(|why| io::Error::other(format!("{} {why}", self.what)))?;
        }
        Ok(read)
    }
}
