//! What was found whole since the machine booted.
//!
//! Reading a large file takes longer than all else that a start does. What was whole since the machine booted, and was
//! not written to, is whole: disks forget between boots, and files are overwritten by accident, and a note beside the
//! file tells both. So nobody needs to wait for the disk either when a file is made.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes from which on a file is large. Smaller ones are read at every start.
pub(super) const LARGE: u64 = 1 << 20;

/// Whether a large file was found whole since the machine booted.
pub(super) fn is_noted(file: &File, path: &Path) -> bool {
    mark_of(file).is_some_and(|mark| fs::read_to_string(note_of(path)).is_ok_and(|found| found == mark))
}

/// Notes that a file was found whole. Without the note, which may fail, the next start reads it again.
pub(super) fn note(file: &File, path: &Path) {
    if let Some(mark) = mark_of(file) {
        let _ = fs::write(note_of(path), mark);
    }
}

/// Where a file's note is.
pub(super) fn note_of(path: &Path) -> PathBuf {
    path.with_extension("checked")
}

/// What changes with the next boot and with every write; `None` of a small file.
fn mark_of(file: &File) -> Option<String> {
    let metadata = file.metadata().ok().filter(|metadata| metadata.len() >= LARGE)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let (inode, length) = (metadata.ino(), metadata.len());
    Some(format!("{} {inode} {length} {}.{}\n", boot.trim(), metadata.mtime(), metadata.mtime_nsec()))
}
