//! Downloads that survive an interruption, also of the process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};

use super::{
    BLOBS, INGEST,
    blob::{MODE, check, remove_if_there, sha256, sync_blobs, write_error},
};

/// The first bytes of a blob, in `ingest/` under its digest; this process alone writes to it.
///
/// Dropped before [`Partial::finish`], the bytes stay for the next try. They are removed if they turn out wrong, or if the
/// disk is full.
#[derive(Debug)]
pub(crate) struct Partial {
    root: PathBuf,
    path: PathBuf,
    file: Flock<File>,
    blob: Descriptor,
    hasher: Sha256,
    len: u64,
    /// Whether to remove the file on drop.
    spoilt: bool,
}

impl Partial {
    pub(super) fn open(root: &Path, blob: &Descriptor) -> Result<Option<Self>> {
        let path = root.join(INGEST).join(blob.digest().as_ref().replacen(':', "-", 1));
        let failed = || format!("open partial download {}", path.display());
        let file = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(MODE)
                .open(&path)
                .map_err(|error| write_error(&path, error))?;
            let file = match super::lock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err(Errno::EWOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(io::Error::from(errno)).with_context(failed),
            };
            // The holder before us may have finished or removed it: then this name is another file, or none.
            let ours = file.metadata().with_context(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == ours) {
                break file;
            }
        };
        let mut partial = Self {
            root: root.to_owned(),
            path,
            file,
            blob: blob.clone(),
            hasher: Sha256::new(),
            len: 0,
            spoilt: false,
        };
        partial.catch_up()?;
        Ok(Some(partial))
    }

    /// How many bytes are there, and will not be written again.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The blob is longer than its descriptor says, or the disk failed.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len.saturating_add(bytes.len() as u64);
        if len > self.blob.size() {
            self.spoilt = true;
            anyhow::bail!("{}: more than the {} bytes that its descriptor gives", self.blob.digest(), self.blob.size());
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.spoilt = true;
            return Err(write_error(&self.path, error).into());
        }
        self.hasher.update(bytes);
        self.len = len;
        Ok(())
    }

    /// Forgets what is there, for a server that can't continue.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|error| write_error(&self.path, error))?;
        self.hasher = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// Verifies the blob, waits for the disk and makes it visible.
    ///
    /// # Errors
    /// The bytes are not the descriptor's: then they are removed.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.spoilt = true;
        check(&self.blob, &sha256(self.hasher.clone()), self.len)?;
        self.file.sync_all().map_err(|error| write_error(&self.path, error))?;
        let path = self.root.join(BLOBS).join(self.blob.digest().digest());
        fs::rename(&self.path, &path).map_err(|error| write_error(&path, error))?;
        self.spoilt = false;
        sync_blobs(&self.root)
    }

    /// Hashes what an earlier try left; what can't be its beginning is dropped.
    fn catch_up(&mut self) -> Result<()> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut len = 0;
        loop {
            let read = self.file.read(&mut buffer).with_context(|| format!("read {}", self.path.display()))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            len += read as u64;
            if len > self.blob.size() {
                return self.restart();
            }
        }
        self.file.seek(SeekFrom::Start(len)).with_context(|| format!("seek in {}", self.path.display()))?;
        (self.hasher, self.len) = (hasher, len);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.spoilt || self.len == 0 {
            // Best effort: what stays is removed by the garbage collector.
            let _ = remove_if_there(&self.path);
        }
    }
}
