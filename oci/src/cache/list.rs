//! What is in the cache: for people who look at it, check it and make room.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Cache, Key, Tier, entry::is_sound, folder::remove_entry, lock::KeyLock, modules::MODULES};
use crate::{Error, Module};

/// A file that the cache keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the module, 64 hex digits.
    pub digest: String,
    /// What it is of the module's.
    pub what: What,
    /// Bytes on disk.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Native code.
    Code {
        /// The engines that can load it.
        fingerprint: String,
        /// How well it was made.
        tier: Tier,
    },
    /// The module itself, from a layer of an image.
    Module,
}

impl Cache {
    /// The node's cache: the shim's, and root's.
    pub const NODE: &'static str = "/var/lib/lighter/cache";
    /// Bytes of code that are kept for each engine, and of modules, where nobody says how many.
    pub const NODE_BYTES: u64 = 4 << 30;

    /// Everything that it keeps, used last first.
    ///
    /// # Errors
    /// A folder can't be read.
    pub fn entries(&self) -> Result<Vec<Listed>, Error> {
        let mut entries = Vec::new();
        for (folder, is_dir) in list(self.root())? {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if is_dir {
                entries.extend(list(&folder)?.into_iter().filter_map(|(path, _)| listed(path, &name)));
            }
        }
        entries.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
        Ok(entries)
    }

    /// Removes what was used least recently until all of it fits into `max_bytes`. Returns what went.
    ///
    /// A guest that runs keeps its code: the file has lost its name only.
    ///
    /// # Errors
    /// A folder can't be read, or a file can't be removed.
    pub fn shrink(&self, max_bytes: u64) -> Result<Vec<Listed>, Error> {
        self.sweep()?;
        let mut entries = self.entries()?;
        let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
        let mut removed = Vec::new();
        while total > max_bytes
            && let Some(entry) = entries.pop()
        {
            entry.remove()?;
            total -= entry.size;
            removed.push(entry);
        }
        Ok(removed)
    }

    /// Removes what killed processes had in the making.
    fn sweep(&self) -> Result<(), Error> {
        for (folder, is_dir) in list(&self.root)? {
            for (path, _) in if is_dir { list(&folder)? } else { Vec::new() } {
                if path.extension().is_some_and(|e| e == "tmp") {
                    let lock = path.with_extension("lock");
                    // Who makes it holds the lock. Taking it removes its file too.
                    if !KeyLock::is_held(&lock)? {
                        let _lock = KeyLock::acquire(&lock)?;
                        remove_entry(&path)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Listed {
    /// Whether it is what its name says, and whole. Reads all of it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn is_sound(&self) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        match &self.what {
            What::Code { fingerprint, tier } => {
                let key = Key { fingerprint: fingerprint.clone(), digest: self.digest.clone(), tier: *tier };
                is_sound(&file, &key)
            }
            What::Module => match Module::of_file(file, &self.digest, None) {
                Ok(mut module) => Ok(module.digest()? == self.digest),
                Err(_) => Ok(false),
            },
        }
    }

    /// Removes it. One that is gone already is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        remove_entry(&self.path)
    }
}

/// The paths in a folder, and whether each is a folder itself.
fn list(folder: &Path) -> Result<Vec<(PathBuf, bool)>, Error> {
    let failed = |source| Error::Cache { operation: "list cache folder", path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries
        .map(|entry| {
            let entry = entry.map_err(failed)?;
            Ok((entry.path(), entry.file_type().map_err(failed)?.is_dir()))
        })
        .collect()
}

/// What a file in the folder `folder` is; `None` for locks, notes and what is in the making, or gone by now.
fn listed(path: PathBuf, folder: &str) -> Option<Listed> {
    let name = path.file_name()?.to_str()?;
    let (digest, what) = match name.split('.').collect::<Vec<_>>()[..] {
        [digest, "wasm"] if folder == MODULES => (digest, What::Module),
        [digest, "cwasm"] => (digest, What::Code { fingerprint: folder.to_owned(), tier: Tier::Optimised }),
        [digest, "baseline", "cwasm"] => (digest, What::Code { fingerprint: folder.to_owned(), tier: Tier::Baseline }),
        _ => return None,
    };
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    let metadata = fs::symlink_metadata(&path).ok().filter(|metadata| is_digest && metadata.is_file())?;
    let used = Duration::from_secs(u64::try_from(metadata.atime()).unwrap_or_default());
    let digest = digest.to_owned();
    Some(Listed { digest, what, size: metadata.len(), used: SystemTime::UNIX_EPOCH + used, path })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Layer, Modules};

    /// A cache with code of both tiers for one module, the module itself, and what is none of these.
    fn cache(folder: &Path) -> Cache {
        let cache = Cache::open(folder, u64::MAX).unwrap();
        let module = b"\0asm\x01\0\0\0";
        let digest = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476".to_owned();
        for tier in [Tier::Optimised, Tier::Baseline] {
            let key = Key { fingerprint: "engine-1".to_owned(), digest: digest.clone(), tier };
            let write = |mut file: &File| {
                file.write_all(b"code").unwrap();
                Ok::<_, Error>(())
            };
            cache.get_or_make(&key, write).unwrap();
        }
        let layer = Layer { digest, size: 8 };
        let modules = Modules::open(folder, u64::MAX).unwrap();
        let mut fetch = modules.fetch(&layer).unwrap().unwrap();
        fetch.write_all(module).unwrap();
        fetch.finish().unwrap();
        fs::write(folder.join("engine-1/short.cwasm"), "").unwrap();
        fs::write(folder.join("engine-1/x.lock"), "").unwrap();
        cache
    }

    #[test]
    fn lists_and_checks_what_it_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let entries = cache.entries().unwrap();
        assert_eq!(entries.len(), 3, "{entries:?}");
        assert!(entries.iter().all(|entry| entry.is_sound().unwrap()));
        for entry in entries {
            let mut bytes = fs::read(&entry.path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&entry.path, bytes).unwrap();
            assert!(!entry.is_sound().unwrap(), "{entry:?}");
            entry.remove().unwrap();
        }
        assert_eq!(cache.entries().unwrap(), []);
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        for (entry, seconds) in cache.entries().unwrap().iter().zip([3, 1, 2]) {
            let then = nix::sys::time::TimeSpec::new(seconds, 0);
            nix::sys::stat::futimens(File::open(&entry.path).unwrap(), &then, &then).unwrap();
        }
        let entries = cache.entries().unwrap();
        let total: u64 = entries.iter().map(|entry| entry.size).sum();
        assert_eq!(cache.shrink(total).unwrap(), []);
        assert_eq!(cache.shrink(total - 1).unwrap(), entries[2..]);
        assert_eq!(cache.shrink(0).unwrap().len(), 2);
    }

    #[test]
    fn what_killed_processes_had_in_the_making_goes_and_what_others_make_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let path = |name: &str| folder.path().join("engine-1").join(name);
        for name in ["dead.tmp", "dead.lock", "alive.baseline.tmp"] {
            fs::write(path(name), "half").unwrap();
        }
        let _maker = KeyLock::acquire(&path("alive.baseline.lock")).unwrap();
        cache.shrink(u64::MAX).unwrap();
        assert!(!path("dead.tmp").exists() && !path("dead.lock").exists());
        assert!(path("alive.baseline.tmp").exists() && path("alive.baseline.lock").exists());
    }
}
