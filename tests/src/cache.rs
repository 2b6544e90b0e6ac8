//! What is made once and kept under the user's cache folder: root filesystems and guests.
//!
//! An entry's name carries a hash of its recipe, so that a changed recipe makes a new entry. It is made
//! under another name and renamed when complete: an interrupted run never leaves half an entry behind.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The entry `KIND-HASH` of `recipe`, made by `make` in an empty folder when it isn't there yet.
///
/// # Errors
/// When there is no cache folder, or `make` fails.
pub(crate) fn entry(kind: &str, recipe: &[u8], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = folder()?;
    let entry = folder.join(format!("{kind}-{}", &hex_digest(recipe)[..16]));
    if entry.exists() {
        return Ok(entry);
    }
    let lock = File::create(folder.join("lock")).context("create the lock of the cache folder")?;
    lock.lock().context("lock the cache folder")?;
    // Another process may have made it while this one waited.
    if entry.exists() {
        return Ok(entry);
    }
    let partial = entry.with_extension("partial");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", partial.display()));
        }
        _ => fs::create_dir(&partial).with_context(|| format!("create {}", partial.display()))?,
    }
    make(&partial)?;
    fs::rename(&partial, &entry).with_context(|| format!("rename {}", partial.display()))?;
    Ok(entry)
}

/// `${XDG_CACHE_HOME:-$HOME/.cache}/lighter/testbed`.
pub(crate) fn folder() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => env::home_dir().context("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    let folder = cache.join("lighter/testbed");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
