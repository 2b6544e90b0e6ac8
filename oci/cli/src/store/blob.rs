//! Writing blobs.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};

use super::{BLOBS, INGEST};
use crate::pending::Pending;

/// Of all files in the store; who may look at them, its folder says.
pub(super) const MODE: u32 = 0o644;

/// A blob in the making.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    root: PathBuf,
    file: Pending,
    hasher: Sha256,
    size: u64,
}

impl BlobWriter {
    pub(super) fn new(root: &Path) -> Result<Self> {
        let folder = root.join(INGEST);
        let file = Pending::new(&folder, MODE).map_err(|error| write_error(&folder, error))?;
        Ok(Self { root: root.to_owned(), file, hasher: Sha256::new(), size: 0 })
    }

    /// Waits for the disk and makes the blob visible: its digest and size.
    ///
    /// # Errors
    /// The bytes are not the `expected` ones, or the disk failed; then there is no such file.
    pub(crate) fn finish(self, expected: Option<&Descriptor>) -> Result<(String, u64)> {
        let digest = sha256(self.hasher.clone());
        if let Some(expected) = expected {
            check(expected, &digest, self.size)?;
        }
        self.publish(digest)
    }

    /// [`Self::finish`] for a blob whose name is all that is known of it.
    pub(crate) fn finish_as(self, expected: &str) -> Result<()> {
        let digest = sha256(self.hasher.clone());
        if digest != expected {
            bail!(
                "{expected}: the bytes are not the ones that were named, they are {digest}; it is damaged or cut short"
            );
        }
        self.publish(digest).map(|_| ())
    }

    fn publish(self, digest: String) -> Result<(String, u64)> {
        let path = self.root.join(BLOBS).join(&digest["sha256:".len()..]);
        self.file.publish(&path).map_err(|error| write_error(&path, error))?;
        sync_blobs(&self.root)?;
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.file().write(bytes).map_err(|error| write_error(&self.root.join(INGEST), error))?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.file().flush()
    }
}

/// Whether what was written is what the descriptor says.
pub(super) fn check(expected: &Descriptor, digest: &str, size: u64) -> Result<()> {
    let name = expected.digest();
    if size != expected.size() {
        bail!("{name}: got {size} bytes instead of {}", expected.size());
    }
    if digest != name.as_ref() {
        bail!(
            "{name}: the bytes are not the ones that were named, they are {digest}; the content is damaged or forged"
        );
    }
    Ok(())
}

/// Hashes what is read through it.
pub(crate) struct Hashed<R> {
    reader: R,
    hasher: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, hasher: Sha256::new() }
    }

    /// Of what was read so far.
    pub(crate) fn digest(self) -> String {
        sha256(self.hasher)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// `sha256:` and hex digits.
pub(crate) fn sha256(hasher: Sha256) -> String {
    hasher.finalize().iter().fold("sha256:".to_owned(), |digest, byte| digest + &format!("{byte:02x}"))
}

/// Makes the renames in the blob folder last.
pub(super) fn sync_blobs(root: &Path) -> Result<()> {
    let folder = root.join(BLOBS);
    File::open(&folder).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", folder.display()))
}

/// Removes a file; it is no error if it isn't there.
pub(super) fn remove_if_there(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// What to tell when a file in the store can't be written.
pub(super) fn write_error(path: &Path, error: io::Error) -> io::Error {
    let cure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space (`lighter gc`), or set LIGHTER_STORE to a folder on another disk"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; set LIGHTER_STORE to a folder of yours"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("write {}: {error}{cure}", path.display()))
}
