//! The content-addressed cache of native code.
//!
//! `ROOT/ENGINE/SHA256.cwasm`: the folder names the set of engines that can load the code, the file the module it was
//! made from. `SHA256.baseline.cwasm` is code that was made quickly, for as long as there is no better. An entry is written to a temporary name and renamed, under one lock per key, so that a hundred replicas
//! compile once and nobody sees half a file. It ends in a footer with the module's digest, its own length and a CRC-32,
//! which tells a damaged or misplaced entry from a sound one; against people, the folder's ownership is what protects.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::Error;

/// Marks an entry that was written to its end. The last byte is the footer's version.
const MAGIC: &[u8; 8] = b"LIGHTER\x01";
/// Magic, length of the code (u64 LE), CRC-32 of the code (u32 LE), 4 bytes of zero, the module's digest as hex digits.
const FOOTER: u64 = 24 + DIGEST as u64;
/// Hex digits of a SHA-256.
const DIGEST: usize = 64;
/// After how long it is worth trying again what failed.
const RETRY: Duration = Duration::from_secs(3600);

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

/// The right to work in the background, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: Flock<File>,
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

    /// Notes that the entry of `key` could not be made, so that not every start tries again.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note_failure(&self, key: &Key, why: &str) -> Result<(), Error> {
        let path = self.folder(key)?.join(format!("{}.failed", key.stem()));
        fs::write(&path, why).map_err(|source| Error::Cache { operation: "write", path, source })
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
        let path = self.root.join("background.lock");
        let failed = |source| Error::Cache { operation: "lock", path: path.clone(), source };
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => Ok(Turn { _lock: lock }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Its folder.
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
        let _lock = KeyLock::acquire(folder.join(format!("{}.lock", key.stem())))?;
        // Whoever held the lock before may have made it.
        if let Some(entry) = sound_entry(&path, key)? {
            return Ok(entry);
        }
        let temporary = Temporary::new(folder.join(format!("{}.tmp", key.stem())))?;
        make(&temporary.file)?;
        let file = temporary.finish(&path, key)?;
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

/// Removes what was used least recently of the files with `extension` until they fit into `max_bytes`, but never `keep`.
pub(crate) fn evict(folder: &Path, extension: &str, max_bytes: u64, keep: &Path) -> Result<(), Error> {
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

/// Makes `path` with mode 0700 where it is missing, and checks that nobody else can write to it.
pub(crate) fn trusted_folder(path: &Path) -> Result<(), Error> {
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

/// The entry at `path` if it is whole; a damaged one is removed.
fn sound_entry(path: &Path, key: &Key) -> Result<Option<Entry>, Error> {
    let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Cache { operation: "open cache entry", path: path.to_owned(), source });
        }
    };
    if was_checked(&file, path, key) || is_sound(&file, key).is_ok_and(|sound| sound && check_off(&file, path)) {
        used_now(&file);
        return Ok(Some(Entry { file, path: path.to_owned(), made: false }));
    }
    remove_entry(path)?;
    Ok(None)
}

/// Reading a large entry takes longer than all else that a start does, and what was whole since the machine booted, and
/// was not written to, is whole. Disks forget between boots, and files are overwritten by accident: both are told.
const LARGE: u64 = 1 << 20;

/// Whether a large entry was found whole since the machine booted.
fn was_checked(file: &File, path: &Path, key: &Key) -> bool {
    let Some(mark) = mark_of(file) else { return false };
    fs::read_to_string(path.with_extension("checked")).is_ok_and(|found| found == mark)
        && footer_of(file, key).is_ok_and(|sum| sum.is_some())
}

/// Notes that an entry was found whole. Always true: without the note, the next start checks again.
fn check_off(file: &File, path: &Path) -> bool {
    if let Some(mark) = mark_of(file) {
        let _ = fs::write(path.with_extension("checked"), mark);
    }
    true
}

/// What changes with the next boot and with every write; `None` of a small entry.
fn mark_of(file: &File) -> Option<String> {
    let metadata = file.metadata().ok().filter(|metadata| metadata.len() >= LARGE)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let (inode, length) = (metadata.ino(), metadata.len());
    Some(format!("{} {inode} {length} {}.{}\n", boot.trim(), metadata.mtime(), metadata.mtime_nsec()))
}

/// For eviction. Entries are read through mmap, which leaves no trace under noatime.
pub(crate) fn used_now(file: &File) {
    let now = nix::sys::time::TimeSpec::UTIME_NOW;
    let omit = nix::sys::time::TimeSpec::UTIME_OMIT;
    let _ = nix::sys::stat::futimens(file, &now, &omit);
}

pub(crate) fn is_sound(mut file: &File, key: &Key) -> io::Result<bool> {
    let Some((code, claimed)) = footer_of(file, key)? else { return Ok(false) };
    let sum = checksum(file, code)?;
    file.rewind()?;
    Ok(sum == claimed)
}

/// Length of the code and its sum, as the footer says, if that is the key's. Leaves the file at the start.
fn footer_of(mut file: &File, key: &Key) -> io::Result<Option<(u64, u32)>> {
    let len = file.metadata()?.len();
    if len < FOOTER {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(len - FOOTER))?;
    let mut found = [0; FOOTER as usize];
    file.read_exact(&mut found)?;
    file.rewind()?;
    let code = len - FOOTER;
    // All but the sum, which takes reading the whole file.
    let claimed = u32::from_le_bytes([found[16], found[17], found[18], found[19]]);
    Ok((found == footer(key, code, claimed)).then_some((code, claimed)))
}

fn footer(key: &Key, len: u64, sum: u32) -> [u8; FOOTER as usize] {
    let mut bytes = [0; FOOTER as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&len.to_le_bytes());
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    let digest = key.digest.as_bytes();
    let digest = &digest[..digest.len().min(DIGEST)];
    bytes[24..24 + digest.len()].copy_from_slice(digest);
    bytes
}

/// CRC-32 of the first `len` bytes. Reads instead of mapping: the pages stay the page cache's, not this process's.
fn checksum(mut file: &File, len: u64) -> io::Result<u32> {
    file.rewind()?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut rest = len;
    while rest > 0 {
        let want = usize::try_from(rest).map_or(buffer.len(), |r| r.min(buffer.len()));
        file.read_exact(&mut buffer[..want])?;
        hasher.update(&buffer[..want]);
        rest -= want as u64;
    }
    Ok(hasher.finalize())
}

/// Removes an entry and what was noted of it.
pub(crate) fn remove_entry(path: &Path) -> Result<(), Error> {
    remove_if_there(path)?;
    remove_if_there(&path.with_extension("checked"))
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Cache { operation: "remove cache entry", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// An entry in the making, removed if it is not finished. The key's lock is held, so its name is ours alone, and one
/// that a killed process left is overwritten.
pub(crate) struct Temporary {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

impl Temporary {
    pub(crate) fn new(path: PathBuf) -> Result<Self, Error> {
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

    /// Adds the footer, waits for the disk and gives the entry its name.
    fn finish(self, path: &Path, key: &Key) -> Result<File, Error> {
        let failed = |operation, source| Error::Cache { operation, path: path.to_owned(), source };
        let written = || {
            let mut file = &self.file;
            let len = file.metadata()?.len();
            let sum = checksum(file, len)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&footer(key, len, sum))?;
            file.sync_all()?;
            file.rewind()
        };
        written().map_err(|source| failed("write cache entry", source))?;
        fs::rename(&self.path, path).map_err(|source| failed("rename cache entry", source))?;
        // Opened anew for reading alone: a file that is open for writing can't be mapped as code safely.
        File::open(path).map_err(|source| failed("open cache entry", source))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

/// An exclusive lock that leaves no file behind.
pub(crate) struct KeyLock {
    _lock: Flock<File>,
    path: PathBuf,
}

impl KeyLock {
    pub(crate) fn acquire(path: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::Cache { operation: "lock cache entry", path: path.clone(), source };
        loop {
            let file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
            let lock =
                Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(io::Error::from(errno)))?;
            // The holder before us removed the file: then others may lock a new one, and ours is worth nothing.
            let ours = lock.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == ours) {
                return Ok(Self { _lock: lock, path });
            }
        }
    }
}

impl KeyLock {
    /// Whether somebody has it. Takes nothing.
    fn is_held(path: &Path) -> Result<bool, Error> {
        let failed = |source| Error::Cache { operation: "look at lock of cache entry", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(failed(source)),
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::atomic::AtomicUsize};

    use super::*;

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
        assert!(!mark.exists());
        assert!(cache.get(&key("a")).unwrap().is_some());
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
