//! The local store of images: an OCI image layout folder, which skopeo, oras and crane read too.
//!
//! `ROOT/oci-layout`, `ROOT/index.json` with an entry for each name, `ROOT/blobs/sha256/HEX`. Beside them `ingest/`, where
//! blobs are until they are whole and verified, and two lock files. What is under `blobs/` is whole, always: files get
//! there by a rename after their digest was checked and the disk has them.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

mod blob;
mod gc;
mod graph;
mod lock;
mod names;
mod partial;

use std::{
    env,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result, bail};
use lighter_oci::image;
use oci_spec::image::Descriptor;

use self::{blob::write_error, lock::Lock};
pub(crate) use self::{
    blob::{BlobWriter, Hashed, sha256},
    graph::Graph,
    partial::Partial,
};
use crate::{pending::Pending, reference::is_sha256};

/// The file that makes a folder an image layout, and what it holds.
pub(crate) const LAYOUT_FILE: &str = "oci-layout";
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file that names the images.
pub(crate) const INDEX_FILE: &str = "index.json";
/// The folder of the blobs.
pub(crate) const BLOBS: &str = "blobs/sha256";
/// Blobs in the making and partial downloads.
const INGEST: &str = "ingest";
/// Held shared by whoever makes or reads images, exclusively by the garbage collector.
const CONTENT_LOCK: &str = "content.lock";
/// Held while `index.json` is read, changed and replaced.
const INDEX_LOCK: &str = "index.lock";

/// An image layout folder that several processes may use at once.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    /// Shared, from the first write on, for as long as the store is open: blobs that no name leads to yet would be
    /// garbage.
    kept: Mutex<Option<Lock>>,
}

impl Store {
    /// Opens the user's store: `$LIGHTER_STORE`, or else `/var/lib/lighter/store` for root and
    /// `$XDG_DATA_HOME/lighter/store` (`~/.local/share`) for others. Makes it if it isn't there.
    pub(crate) fn open() -> Result<Self> {
        Self::at(&default_root()?)
    }

    /// Opens the store at `root`, and makes it if it isn't there.
    pub(crate) fn at(root: &Path) -> Result<Self> {
        for folder in [root.to_owned(), root.join(BLOBS), root.join(INGEST)] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(|| {
                format!("create store folder {}; set LIGHTER_STORE to a folder of yours", folder.display())
            })?;
        }
        let store = Self { root: root.to_owned(), kept: Mutex::new(None) };
        let layout = root.join(LAYOUT_FILE);
        match fs::read(&layout) {
            Ok(bytes) => check_layout(&bytes).with_context(|| format!("{}", layout.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => store.replace(LAYOUT_FILE, LAYOUT)?,
            Err(error) => return Err(error).with_context(|| format!("read {}", layout.display())),
        }
        Ok(store)
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The blob, if the store has it; `digest` is `sha256:` and 64 hex digits.
    pub(crate) fn open_blob(&self, digest: &str) -> Result<Option<File>> {
        let path = self.blob_path(digest)?;
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open blob {}", path.display())),
        }
    }

    /// Whether the store has the blob, with the size that its descriptor gives.
    pub(crate) fn has(&self, blob: &Descriptor) -> Result<bool> {
        let Some(file) = self.open_blob(blob.digest().as_ref())? else { return Ok(false) };
        Ok(file.metadata().with_context(|| format!("look at blob {}", blob.digest()))?.len() == blob.size())
    }

    /// [`Self::has`], with the bytes that the digest names. Reads all of them.
    pub(crate) fn has_sound(&self, blob: &Descriptor) -> Result<bool> {
        if !self.has(blob)? {
            return Ok(false);
        }
        let Some(file) = self.open_blob(blob.digest().as_ref())? else { return Ok(false) };
        let mut bytes = Hashed::new(file);
        io::copy(&mut bytes, &mut io::sink()).with_context(|| format!("read blob {}", blob.digest()))?;
        Ok(bytes.digest() == blob.digest().as_ref())
    }

    /// A blob to be: hashes while it is written, and is gone if it is dropped before [`BlobWriter::finish`].
    pub(crate) fn writer(&self) -> Result<BlobWriter> {
        self.keep()?;
        BlobWriter::new(&self.root)
    }

    /// Stores `bytes`: their digest and size.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<(String, u64)> {
        let mut writer = self.writer()?;
        writer.write_all(bytes)?;
        writer.finish(None)
    }

    /// A download of `blob` that survives this process: [`Partial`].
    ///
    /// `None` while another process downloads it.
    pub(crate) fn partial(&self, blob: &Descriptor) -> Result<Option<Partial>> {
        self.keep()?;
        Partial::open(&self.root, blob)
    }

    /// The whole document, verified against its descriptor.
    ///
    /// # Errors
    /// It isn't there, is larger than a document may be, or isn't what the descriptor says.
    pub(crate) fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let digest = blob.digest();
        let Some(file) = self.open_blob(digest.as_ref())? else {
            bail!("{digest} ({}) is not in the store {}; pull the image again", blob.media_type(), self.root.display());
        };
        let mut bytes = Vec::new();
        file.take(image::MAX_DOCUMENT.saturating_add(1))
            .read_to_end(&mut bytes)
            .with_context(|| format!("read blob {digest}"))?;
        image::verify(blob, &bytes)?;
        Ok(bytes)
    }

    /// Keeps the garbage collector away for as long as this store is open. Writing does so by itself; who reads blobs that
    /// somebody could remove meanwhile calls it before.
    pub(crate) fn keep(&self) -> Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if kept.is_none() {
            *kept = Some(Lock::shared(&self.root.join(CONTENT_LOCK))?);
        }
        Ok(())
    }

    /// Lets the garbage collector in again: what this process wrote has its names.
    pub(crate) fn release(&self) {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
    }

    /// Where the blob is, if the store has it.
    pub(crate) fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        if !is_sha256(digest) {
            bail!("{digest:?}: the store holds blobs by SHA-256 only");
        }
        Ok(self.root.join("blobs").join(digest.replacen(':', "/", 1)))
    }

    /// Gives `name` in the store's folder these bytes, all at once.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let written = || {
            let mut pending = Pending::new(&self.root.join(INGEST), blob::MODE)?;
            pending.file().write_all(bytes)?;
            pending.publish(&path)?;
            File::open(&self.root)?.sync_all()
        };
        written().map_err(|error| write_error(&path, error).into())
    }
}

impl image::Content for Store {
    type Error = anyhow::Error;

    async fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>> {
        if self.open_blob(blob.digest().as_ref())?.is_none() {
            return Ok(None);
        }
        self.document(blob).map(Some)
    }
}

/// Whether this `oci-layout` is of a version that we know.
pub(crate) fn check_layout(bytes: &[u8]) -> Result<()> {
    let layout: oci_spec::image::OciLayout = serde_json::from_slice(bytes).context("this is no OCI image layout")?;
    match layout.image_layout_version().as_str() {
        "1.0.0" => Ok(()),
        other => bail!("image layout version {other:?} is not known; 1.0.0 is"),
    }
}

fn default_root() -> Result<PathBuf> {
    if let Some(root) = absolute("LIGHTER_STORE")? {
        return Ok(root);
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/lighter/store"));
    }
    if let Some(data) = absolute("XDG_DATA_HOME")? {
        return Ok(data.join("lighter/store"));
    }
    let home = absolute("HOME")?.context("no HOME in the environment; set LIGHTER_STORE to a folder of yours")?;
    Ok(home.join(".local/share/lighter/store"))
}

/// The path in a variable, if it is set; a relative one would mean another store in each folder.
fn absolute(variable: &str) -> Result<Option<PathBuf>> {
    match env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(path) if path.is_relative() => bail!("{variable}={} must be an absolute path", path.display()),
        path => Ok(path),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
