//! Folders that only their owner can write, and files in them: made under another name, removed, evicted.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::checked::note_of;
use crate::Error;

/// Makes `path` with mode 0700 where it is missing, and checks that nobody else can write to it.
pub(super) fn trusted_folder(path: &Path) -> Result<(), Error> {
    let failed = |operation, source| Error::Cache { operation, path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| failed("create cache folder", source))?;
            fs::symlink_metadata(path).map_err(|source| failed("look at cache folder", source))?
        }
        Err(source) => return Err(failed("look at cache folder", source)),
    };
    let untrusted = |why: String| Err(Error::CacheUntrusted { path: path.to_owned(), why });
    if !metadata.is_dir() {
        return untrusted("it is not a folder".to_owned());
    }
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user {
        return untrusted(format!("it belongs to user {}, not to {user}", metadata.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return untrusted(format!("its mode is {:04o}, so others can write to it", metadata.mode() & 0o7777));
    }
    Ok(())
}

/// Removes what was used least recently of the files with `extension` until they fit into `max_bytes`, but never `keep`.
pub(super) fn evict(folder: &Path, extension: &str, max_bytes: u64, keep: &Path) -> Result<(), Error> {
    let listed = |source| Error::Cache { operation: "list cache folder", path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for item in fs::read_dir(folder).map_err(listed)? {
        let item = item.map_err(listed)?;
        let path = item.path();
        if path.extension().is_some_and(|e| e == extension)
            && let Ok(metadata) = item.metadata()
        {
            entries.push((metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
        }
    }
    let mut total: u64 = entries.iter().map(|(_, len, _)| len).sum();
    entries.sort();
    for (_, len, path) in entries {
        if total <= max_bytes {
            break;
        }
        if path != keep {
            remove_entry(&path)?;
            total -= len;
        }
    }
    Ok(())
}

/// For eviction. Entries are read through mmap, which leaves no trace under noatime.
pub(super) fn used_now(file: &File) {
    let now = nix::sys::time::TimeSpec::UTIME_NOW;
    let omit = nix::sys::time::TimeSpec::UTIME_OMIT;
    let _ = nix::sys::stat::futimens(file, &now, &omit);
}

/// Removes an entry and what was noted of it.
pub(super) fn remove_entry(path: &Path) -> Result<(), Error> {
    remove_if_there(path)?;
    remove_if_there(&note_of(path))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Cache { operation: "remove cache entry", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// An entry in the making, removed if it is not finished. The key's lock is held, so its name is ours alone, and one
/// that a killed process left is overwritten.
pub(super) struct Temporary {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Temporary {
    pub(super) fn new(path: PathBuf) -> Result<Self, Error> {
        remove_if_there(&path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| Error::Cache { operation: "create cache entry", path: path.clone(), source })?;
        Ok(Self { file, path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}
