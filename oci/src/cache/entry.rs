//! Whether an entry is whole: its footer, its checksum, and what was found out before.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    Entry, Key, checked,
    folder::{Temporary, remove_entry, used_now},
};
use crate::Error;

/// Marks an entry that was written to its end. The last byte is the footer's version.
const MAGIC: &[u8; 8] = b"LIGHTER\x01";
/// Magic, length of the code (u64 LE), CRC-32 of the code (u32 LE), 4 bytes of zero, the module's digest as hex digits.
pub(super) const FOOTER: u64 = 24 + DIGEST as u64;
/// Hex digits of a SHA-256.
const DIGEST: usize = 64;

/// The entry at `path` if it is whole; a damaged one is removed.
pub(super) fn sound_entry(path: &Path, key: &Key) -> Result<Option<Entry>, Error> {
    let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Cache { operation: "open cache entry", path: path.to_owned(), source });
        }
    };
    let noted = checked::is_noted(&file, path) && footer_of(&file, key).is_ok_and(|footer| footer.is_some());
    if noted || is_sound(&file, key).unwrap_or(false) {
        if !noted {
            checked::note(&file, path);
        }
        used_now(&file);
        return Ok(Some(Entry { file, path: path.to_owned(), made: false }));
    }
    remove_entry(path)?;
    Ok(None)
}

/// Whether the footer is the key's and the sum is right. Reads all of it, and leaves the file at the start.
pub(super) fn is_sound(mut file: &File, key: &Key) -> io::Result<bool> {
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

/// Adds the footer to code that was written to its end, and gives the entry its name. Does not wait for the disk: what a
/// power cut leaves of it is told by its sum, at the first start after the next boot.
pub(super) fn finish(made: Temporary, path: &Path, key: &Key) -> Result<File, Error> {
    let failed = |operation, source| Error::Cache { operation, path: path.to_owned(), source };
    let written = || {
        let mut file = &made.file;
        let len = file.metadata()?.len();
        let sum = checksum(file, len)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&footer(key, len, sum))?;
        file.rewind()
    };
    written().map_err(|source| failed("write cache entry", source))?;
    fs::rename(&made.path, path).map_err(|source| failed("rename cache entry", source))?;
    // Opened anew for reading alone: a file that is open for writing can't be mapped as code safely.
    let file = File::open(path).map_err(|source| failed("open cache entry", source))?;
    checked::note(&file, path);
    Ok(file)
}
