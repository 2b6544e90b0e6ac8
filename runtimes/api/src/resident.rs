//! Gives back the pages of a program's own file that only its start needed.
//!
//! The kernel maps sixteen pages around each that is touched. A daemon or a guest that waits, one in every pod, then holds
//! megabytes of code that it never runs again. They are clean and come back from the page cache when they are needed.
#![allow(unsafe_code)]

use std::{ffi::c_void, io, ptr::NonNull};

use nix::sys::mman::{MmapAdvise, madvise};

/// The mappings of a process that hold nothing but what is in their files.
#[derive(Clone, Debug, Default)]
pub struct FilePages(Vec<(usize, usize)>);

impl FilePages {
    /// Finds them in the text of this process's `/proc/self/smaps`.
    #[must_use]
    pub fn of(smaps: &str) -> Self {
        Self(file_mappings(smaps))
    }

    /// Unmaps their pages.
    ///
    /// # Errors
    /// The kernel refuses, which leaves everything as it was.
    pub fn give_back(&self) -> io::Result<()> {
        for &(start, len) in &self.0 {
            if let Some(address) = NonNull::new(start as *mut c_void) {
                // SAFETY: the mapping is one of this process's own, of a file, not writable, and holds nothing but the
                // file's bytes: code, which is never relocated, or data without a changed page. What is read there next
                // comes from the file again. Mappings of a program and its libraries stay until the process ends.
                unsafe { madvise(address, len, MmapAdvise::MADV_DONTNEED) }?;
            }
        }
        Ok(())
    }
}

/// Start and length of file mappings that hold nothing but the file's bytes.
///
/// Of data, permissions alone don't tell: relocations make changed pages in mappings that are read-only by now. Of code
/// they do, and a changed page there is one that the file system has not written out yet. Source: proc_pid_smaps(5).
fn file_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut data = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next().unwrap_or_default(), words.next().unwrap_or_default()) {
            ("Private_Dirty:", "0") => found.extend(data.take()),
            (name, _) if name.ends_with(':') => {}
            (range, permissions) => {
                // After the permissions: offset, device, inode, path.
                let of_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
                let mapping = range.split_once('-').and_then(|(start, end)| {
                    let start = usize::from_str_radix(start, 16).ok()?;
                    Some((start, usize::from_str_radix(end, 16).ok()? - start))
                });
                data = mapping.filter(|_| of_file && permissions == "r--p");
                found.extend(mapping.filter(|_| of_file && permissions == "r-xp"));
            }
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_file_mappings_of_files_are_given_back() {
        let smaps = "\
1000-2000 r--p 00000000 fe:00 1 /bin/program
Size: 4 kB
Private_Dirty: 0 kB
2000-4000 r-xp 00001000 fe:00 1 /bin/program
Private_Dirty: 8 kB
VmFlags: rd ex mr mw me
4000-5000 r--p 00003000 fe:00 1 /bin/program
Private_Dirty: 4 kB
5000-6000 rw-p 00004000 fe:00 1 /bin/program
Private_Dirty: 0 kB
6000-7000 r--p 00000000 00:00 0 [vvar]
Private_Dirty: 0 kB
";
        assert_eq!(file_mappings(smaps), [(0x1000, 0x1000), (0x2000, 0x2000)]);
    }

    #[test]
    fn a_process_goes_on_after_it() {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(!file_mappings(&smaps).is_empty());
        FilePages::of(&smaps).give_back().unwrap();
        assert_eq!(format!("{}", 6 * 7), "42");
    }
}
