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
    /// Finds them in the text of this process's `/proc/self/maps`.
    #[must_use]
    pub fn of(maps: &str) -> Self {
        Self(maps.lines().filter_map(file_mapping).collect())
    }

    /// Unmaps their pages.
    ///
    /// # Errors
    /// The kernel refuses, which leaves everything as it was.
    pub fn give_back(&self) -> io::Result<()> {
        for &(start, len) in &self.0 {
            if let Some(address) = NonNull::new(start as *mut c_void) {
                // SAFETY: the mapping is one of this process's own, of a file, not writable, and holds nothing but the
                // file's bytes: code, or data that is never relocated. What is read there next
                // comes from the file again. Mappings of a program and its libraries stay until the process ends.
                unsafe { madvise(address, len, MmapAdvise::MADV_DONTNEED) }?;
            }
        }
        Ok(())
    }
}

/// Start and length of a mapping, if it holds nothing but its file's bytes.
///
/// That is code, and the read-only data at the start of a file, before the code. Read-only data behind the code was
/// writable while it was relocated. Source: proc_pid_maps(5), elf(5).
fn file_mapping(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (permissions, offset) = (words.next()?, words.next()?);
    // Before the path: device and inode.
    let of_file = words.nth(2).is_some_and(|path| path.starts_with('/'));
    let at_start = offset.bytes().all(|digit| digit == b'0');
    let fixed = permissions == "r-xp" || (permissions == "r--p" && at_start);
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (of_file && fixed).then_some((start, end - start))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_holds_is_given_back() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 1 /bin/program
2000-4000 r-xp 00001000 fe:00 1 /bin/program
4000-5000 r--p 00003000 fe:00 1 /bin/program
5000-6000 rw-p 00004000 fe:00 1 /bin/program
6000-7000 r--p 00000000 00:00 0 [vvar]
nonsense
";
        assert_eq!(FilePages::of(maps).0, [(0x1000, 0x1000), (0x2000, 0x2000)]);
    }

    #[test]
    fn a_process_goes_on_after_it() {
        let pages = FilePages::of(&std::fs::read_to_string("/proc/self/maps").unwrap());
        assert!(!pages.0.is_empty());
        pages.give_back().unwrap();
        assert_eq!(format!("{}", 6 * 7), "42");
    }
}
