//! The content-addressed cache of native code.
//!
//! `ROOT/ENGINE/SHA256.cwasm`: the folder names the set of engines that can load the code, the file the module it was
//! made from. `SHA256.baseline.cwasm` is code that was made quickly, for as long as there is no better. An entry is written
//! to a temporary name and renamed, under one lock per key, so that a hundred replicas compile once and nobody sees half a
//! file; of different ones, a few are made at once. It ends in a footer with the module's digest, its own length and a
//! CRC-32, which tells a damaged or misplaced entry from a sound one; against people, the folder's ownership is what
//! protects.

mod checked;
mod entry;
mod folder;
mod list;
mod lock;
mod modules;
mod slot;

use std::{
    fs::{self, File},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use self::{
    entry::{finish, sound_entry},
    folder::{Temporary, evict, remove_entry, trusted_folder},
    lock::KeyLock,
};
pub use self::{
    list::{Listed, What},
    lock::Turn,
    modules::{Fetch, Layer, Modules},
    slot::Slot,
};
use crate::Error;

/// After how long it is worth trying again what failed.
const RETRY: Duration = Duration::from_secs(3600);
/// How much is noted of each kind; a note has some hundred bytes, and takes a block of the disk.
const NOTED_BYTES: u64 = 64 << 10;

/// A folder of native code that only its owner can write.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    max_bytes: u64,
}

/// Which code: made by which engine from which module, and how well.
#[derive(Clone, Debug)]
pub struct Key {
    /// Folder name: engines with the same fingerprint load each other's code.
    pub fingerprint: String,
    /// SHA-256 of the module, 64 hex digits.
    pub digest: String,
    /// How well.
    pub tier: Tier,
}

/// How much work went into code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Made in one pass, to start soon.
    Baseline,
    /// Made to run fast.
    Optimised,
}

impl Key {
    /// The same module's code of another tier.
    #[must_use]
    pub fn of_tier(&self, tier: Tier) -> Self {
        Self { tier, ..self.clone() }
    }

    /// Without extension.
    fn stem(&self) -> String {
        match self.tier {
            Tier::Baseline => format!("{}.baseline", self.digest),
            Tier::Optimised => self.digest.clone(),
        }
    }
}

/// A sound entry, ready to be mapped.
#[derive(Debug)]
pub struct Entry {
    /// The file. Stays valid when the entry is evicted.
    pub file: File,
    /// Its name, for messages and for [`Cache::discard`].
    pub path: PathBuf,
    /// Whether this call made it.
    pub made: bool,
}

impl Cache {
    /// Opens the cache at `root`, making it if it isn't there. Keeps at most `max_bytes` of entries for each engine.
    ///
    /// # Errors
    /// [`Error::CacheUntrusted`] if others could write to it, [`Error::Cache`] if it can't be made.
    pub fn open(root: &Path, max_bytes: u64) -> Result<Self, Error> {
        trusted_folder(root)?;
        Ok(Self { root: root.to_owned(), max_bytes })
    }

    /// The entry of `key`, if it is there and whole.
    ///
    /// # Errors
    /// The folder could be written by others, or can't be read.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let folder = self.folder(key)?;
        sound_entry(&folder.join(format!("{}.cwasm", key.stem())), key)
    }

    /// Whether some process makes the entry of `key` right now.
    ///
    /// # Errors
    /// The folder could be written by others, or the lock can't be looked at.
    pub fn is_being_made(&self, key: &Key) -> Result<bool, Error> {
        KeyLock::is_held(&self.folder(key)?.join(format!("{}.lock", key.stem())))
    }

    /// Removes the entry of `key`. Nothing there is no error.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn remove(&self, key: &Key) -> Result<(), Error> {
        remove_entry(&self.folder(key)?.join(format!("{}.cwasm", key.stem())))
    }

    /// Notes that the entry of `key` could not be made, so that not every start tries again. The oldest notes go.
    ///
    /// # Errors
    /// It can't be written, or an old one removed.
    pub fn note_failure(&self, key: &Key, why: &str) -> Result<(), Error> {
        let folder = self.folder(key)?;
        let path = folder.join(format!("{}.failed", key.stem()));
        fs::write(&path, why).map_err(|source| Error::Cache { operation: "write", path: path.clone(), source })?;
        evict(&folder, "failed", NOTED_BYTES, &path)
    }

    /// Why the entry of `key` could not be made, if that was tried lately: memory may be free again later.
    ///
    /// # Errors
    /// The folder could be written by others.
    pub fn failure(&self, key: &Key) -> Result<Option<String>, Error> {
        let path = self.folder(key)?.join(format!("{}.failed", key.stem()));
        let lately = |metadata: fs::Metadata| metadata.modified().is_ok_and(|at| at + RETRY > SystemTime::now());
        let known = fs::symlink_metadata(&path).is_ok_and(lately);
        Ok(known.then(|| fs::read_to_string(&path).unwrap_or_default()))
    }

    /// A file on the cache's disk without a name.
    ///
    /// # Errors
    /// It can't be made.
    pub fn scratch(&self) -> Result<File, Error> {
        let Temporary { file, path } = &Temporary::new(self.root.join(format!("{}.scratch", std::process::id())))?;
        file.try_clone().map_err(|source| Error::Cache { operation: "open", path: path.clone(), source })
    }

    /// Waits until no other background work is done for this cache. What is held up by it, nobody waits for.
    ///
    /// # Errors
    /// The lock's file can't be made.
    pub fn background_turn(&self) -> Result<Turn, Error> {
        Turn::wait_for(self.root.join("background.lock"))
    }

    /// Waits until fewer than `most` compilers are at work for this cache that somebody waits for, whoever started them.
    ///
    /// # Errors
    /// [`Error::CompilersBusy`] where that takes longer than `patience`; a lock's file can't be made.
    pub fn compiler_slot(&self, most: NonZeroU32, patience: Duration) -> Result<Slot, Error> {
        Slot::wait_for(&self.root, most, patience)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, key: &Key) -> Result<PathBuf, Error> {
        let folder = self.root.join(&key.fingerprint);
        trusted_folder(&folder)?;
        Ok(folder)
    }

    /// The entry of `key`, or one that `make` writes into the file it is given.
    ///
    /// Blocks while another process makes the same entry. A damaged entry is thrown away and made again.
    ///
    /// # Errors
    /// What `make` returns, or [`Error::Cache`] as `E`.
    pub fn get_or_make<E: From<Error>>(
        &self,
        key: &Key,
        make: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<Entry, E> {
        let folder = self.folder(key)?;
        let path = folder.join(format!("{}.cwasm", key.stem()));
        if let Some(entry) = sound_entry(&path, key)? {
            return Ok(entry);
        }
        let _lock = KeyLock::acquire(&folder.join(format!("{}.lock", key.stem())))?;
        // Whoever held the lock before may have made it.
        if let Some(entry) = sound_entry(&path, key)? {
            return Ok(entry);
        }
        let temporary = Temporary::new(folder.join(format!("{}.tmp", key.stem())))?;
        make(&temporary.file)?;
        let file = finish(temporary, &path, key)?;
        evict(&folder, "cwasm", self.max_bytes, &path)?;
        Ok(Entry { file, path, made: true })
    }

    /// Throws an entry away that its engine could not load.
    ///
    /// # Errors
    /// The file can't be removed, for another reason than that it is gone.
    pub fn discard(&self, entry: &Entry) -> Result<(), Error> {
        remove_entry(&entry.path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::OpenOptions, io::Write, os::unix::fs::PermissionsExt, sync::atomic::AtomicUsize};

    use super::{checked::LARGE, entry::FOOTER, *};

    fn key(digest: &str) -> Key {
        Key { fingerprint: "engine-1".to_owned(), digest: digest.to_owned(), tier: Tier::Optimised }
    }

    fn writes(bytes: &'static [u8]) -> impl FnOnce(&File) -> Result<(), Error> {
        move |mut file| {
            file.write_all(bytes).unwrap();
            Ok(())
        }
    }

    #[test]
    fn many_at_once_make_once_and_leave_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache"), u64::MAX).unwrap();
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    cache
                        .get_or_make::<Error>(&key("a"), |mut file| {
                            made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            file.write_all(b"code").unwrap();
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        let names: Vec<_> = fs::read_dir(folder.path().join("cache/engine-1"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names, ["a.cwasm"]);
    }

    #[test]
    fn a_large_entry_is_read_once_a_boot_and_again_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        let make = |mut file: &File| -> Result<(), Error> {
            file.write_all(&vec![7; LARGE as usize]).unwrap();
            Ok(())
        };
        let path = cache.get_or_make(&key("a"), make).unwrap().path;
        let mark = path.with_extension("checked");
        let first = fs::read_to_string(&mark).unwrap();
        assert!(cache.get(&key("a")).unwrap().is_some());
        // Another boot, or nonsense: read again.
        fs::write(&mark, "other").unwrap();
        assert!(cache.get(&key("a")).unwrap().is_some());
        assert_eq!(fs::read_to_string(&mark).unwrap(), first);
        // Damaged in place, which leaves its length.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", 10).unwrap();
        drop(file);
        assert!(cache.get(&key("a")).unwrap().is_none());
        assert!(!path.exists() && !mark.exists());
    }

    #[test]
    fn tiers_are_kept_apart_and_a_lock_can_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        let (optimised, baseline) = (key("a"), key("a").of_tier(Tier::Baseline));
        assert!(cache.get(&baseline).unwrap().is_none());
        cache.get_or_make(&baseline, writes(b"quick")).unwrap();
        assert!(cache.get(&optimised).unwrap().is_none());
        cache
            .get_or_make::<Error>(&optimised, |mut file| {
                assert!(cache.is_being_made(&optimised).unwrap());
                assert!(!cache.is_being_made(&baseline).unwrap());
                file.write_all(b"slow").unwrap();
                Ok(())
            })
            .unwrap();
        assert!(!cache.is_being_made(&optimised).unwrap());
        cache.note_failure(&baseline, "no memory").unwrap();
        assert_eq!(cache.failure(&baseline).unwrap().as_deref(), Some("no memory"));
        assert_eq!(cache.failure(&optimised).unwrap(), None);
        // One that is too long for another beside it.
        cache.note_failure(&optimised, &"x".repeat(NOTED_BYTES as usize)).unwrap();
        assert_eq!(cache.failure(&baseline).unwrap(), None);
        assert!(cache.failure(&optimised).unwrap().is_some());
        cache.remove(&baseline).unwrap();
        assert!(cache.get(&baseline).unwrap().is_none());
        assert!(cache.get(&optimised).unwrap().is_some());
    }

    #[test]
    fn a_damaged_entry_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        let path = cache.get_or_make(&key("a"), writes(b"some code")).unwrap().path;
        let sound = fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        flipped[3] ^= 1;
        for damaged in [&flipped[..], &sound[..sound.len() - 1], &sound[..5], b"", b"not ours at all, but long enough"]
        {
            fs::write(&path, damaged).unwrap();
            assert!(cache.get_or_make(&key("a"), writes(b"some code")).unwrap().made, "{damaged:?}");
            assert_eq!(fs::read(&path).unwrap(), sound);
        }
        assert!(!cache.get_or_make(&key("a"), writes(b"some code")).unwrap().made);
    }

    #[test]
    fn an_entry_under_another_modules_name_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        let a = cache.get_or_make(&key("a"), writes(b"a")).unwrap().path;
        let b = cache.get_or_make(&key("b"), writes(b"b")).unwrap().path;
        fs::copy(&b, &a).unwrap();
        assert!(cache.get_or_make(&key("a"), writes(b"a")).unwrap().made);
        assert_eq!(&fs::read(&a).unwrap()[..1], b"a");
    }

    #[test]
    fn a_failed_make_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        let failed = cache.get_or_make(&key("a"), |mut file| {
            file.write_all(b"half").unwrap();
            Err(Error::SpecLacks("sense"))
        });
        assert!(matches!(failed, Err(Error::SpecLacks("sense"))));
        assert_eq!(fs::read_dir(folder.path().join("engine-1")).unwrap().count(), 0);
    }

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 2 * (4 + FOOTER)).unwrap();
        let old = cache.get_or_make(&key("old"), writes(b"code")).unwrap();
        let used = cache.get_or_make(&key("used"), writes(b"code")).unwrap();
        for (entry, seconds) in [(&old, 1), (&used, 2)] {
            let then = nix::sys::time::TimeSpec::new(seconds, 0);
            nix::sys::stat::futimens(&entry.file, &then, &then).unwrap();
        }
        cache.get_or_make(&key("new"), writes(b"code")).unwrap();
        let there = |name: &str| folder.path().join(format!("engine-1/{name}.cwasm")).exists();
        assert_eq!((there("old"), there("used"), there("new")), (false, true, true));
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o770, 0o702] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let refused = Cache::open(folder.path(), 1).unwrap_err();
            assert!(refused.to_string().contains("refusing cache folder"), "{refused}");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Cache::open(folder.path(), 1).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("link")).unwrap();
        assert!(Cache::open(&folder.path().join("link"), 1).is_err());
    }
}
