//! Removing what no name leads to.

use std::{
    collections::HashSet,
    fs::{self, DirEntry},
    path::Path,
};

use anyhow::{Context, Result};

use super::{BLOBS, CONTENT_LOCK, INGEST, Store, blob::remove_if_there, lock::Lock};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub(crate) struct Gc {
    /// Files: blobs, and downloads and builds that were broken off.
    pub(crate) blobs: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Store {
    /// Removes every blob that no name leads to, and what broken-off downloads and builds left.
    ///
    /// Waits until nobody builds, loads, pulls or pushes, after calling `waiting` once.
    ///
    /// # Errors
    /// An image is damaged, so that nobody knows what it needs: then nothing is removed.
    pub(crate) fn gc(&self, waiting: impl FnOnce()) -> Result<Gc> {
        self.release();
        let path = self.root().join(CONTENT_LOCK);
        let _lock = match Lock::try_exclusive(&path)? {
            Some(lock) => lock,
            None => {
                waiting();
                Lock::exclusive(&path)?
            }
        };
        let mut needed = HashSet::new();
        for root in self.entries()? {
            // An entry whose root somebody removed by hand needs nothing.
            if self.open_blob(root.digest().as_ref())?.is_none() {
                continue;
            }
            let graph = self.graph(&root).with_context(|| {
                format!("image {} is damaged; `lighter rm` its name, or pull it again", root.digest())
            })?;
            needed.extend(graph.documents.iter().chain(&graph.blobs).map(|blob| blob.digest().digest().to_owned()));
        }
        let mut removed = Gc::default();
        removed.sweep(&self.root().join(BLOBS), |name| needed.contains(name))?;
        removed.sweep(&self.root().join(INGEST), |_| false)?;
        Ok(removed)
    }
}

impl Gc {
    fn sweep(&mut self, folder: &Path, needed: impl Fn(&str) -> bool) -> Result<()> {
        let failed = || format!("list {}", folder.display());
        for entry in fs::read_dir(folder).with_context(failed)? {
            let entry: DirEntry = entry.with_context(failed)?;
            if entry.file_name().to_str().is_some_and(&needed) {
                continue;
            }
            let bytes = entry.metadata().with_context(failed)?.len();
            if remove_if_there(&entry.path())? {
                self.blobs += 1;
                self.bytes += bytes;
            }
        }
        Ok(())
    }
}
