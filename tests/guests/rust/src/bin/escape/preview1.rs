//! Attacks on the calls of WASI 0.1 themselves, past wasi-libc, which would resolve paths first.

use std::io;

use crate::{Attempt, Refusal, report};

type Fd = u32;
type Errno = u16;

const SYMLINK_FOLLOW: u32 = 1;
const RIGHT_FD_READ: u64 = 1 << 1;

#[repr(C)]
struct FdStat {
    filetype: u8,
    flags: u16,
    rights_base: u64,
    rights_inheriting: u64,
}

#[repr(C)]
struct IoVec {
    start: *mut u8,
    length: usize,
}

#[repr(C)]
struct PreStat {
    kind: u8,
    name_length: usize,
}

// The interface: WebAssembly/WASI, legacy/preview1/docs.md.
#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn fd_close(fd: Fd) -> Errno;
    fn fd_fdstat_get(fd: Fd, stat: *mut FdStat) -> Errno;
    fn fd_prestat_get(fd: Fd, stat: *mut PreStat) -> Errno;
    fn fd_read(fd: Fd, iovs: *const IoVec, count: usize, read: *mut usize) -> Errno;
    fn fd_renumber(from: Fd, to: Fd) -> Errno;
    fn path_link(fd: Fd, flags: u32, old: *const u8, old_len: usize, to: Fd, new: *const u8, new_len: usize) -> Errno;
    fn path_open(
        fd: Fd,
        lookup_flags: u32,
        path: *const u8,
        path_len: usize,
        open_flags: u16,
        rights: u64,
        rights_inheriting: u64,
        fd_flags: u16,
        opened: *mut Fd,
    ) -> Errno;
    fn path_unlink_file(fd: Fd, path: *const u8, path_len: usize) -> Errno;
}

pub(crate) fn attack(canary: &str) {
    let preopens: Vec<Fd> = (3..1024).take_while(|fd| is_preopen(*fd)).collect();
    stray_descriptors(&preopens);
    let relative = canary.trim_start_matches('/');
    let up = "../".repeat(24);
    for &preopen in &preopens {
        for path in [
            canary.to_owned(),
            format!("/{up}{relative}"),
            format!("{up}{relative}"),
            format!("a/b/{up}{relative}"),
            format!("a/../{up}{relative}"),
            format!("./a/./b/..//{up}{relative}"),
            "..".to_owned(),
            "../".to_owned(),
            "a/../..".to_owned(),
            "link-absolute".to_owned(),
            "link-relative".to_owned(),
            "link".to_owned(),
            "/proc/self/environ".to_owned(),
            "proc/self/environ".to_owned(),
        ] {
            for flags in [0, SYMLINK_FOLLOW] {
                report(&format!("path_open({preopen}, {flags}, {path})"), open_and_read(preopen, flags, &path));
            }
        }
        for original in ["link-absolute", "link-relative", "link", &format!("{up}{relative}")] {
            report(&format!("path_link({preopen}, follow, {original})"), link_and_read(preopen, original));
        }
    }
    renumber(&preopens, &format!("{up}{relative}"));
}

/// Descriptors that the guest wasn't told of: of the shim, the runner or the engine.
fn stray_descriptors(preopens: &[Fd]) {
    let strays: Vec<Fd> = (3..1024).filter(|fd| !preopens.contains(fd) && answers(*fd)).collect();
    let attempt = if strays.is_empty() { Err(Refusal::new("none answers")) } else { Ok(format!("{strays:?}")) };
    report("stray descriptors", attempt);
    for fd in [Fd::MAX, Fd::MAX - 1, 1 << 31, 1 << 20] {
        let attempt = if answers(fd) { Ok("answers".to_owned()) } else { Err(Refusal::new("does not answer")) };
        report(&format!("descriptor {fd}"), attempt);
    }
}

/// Numbers that mean something else now must not mean more than before.
fn renumber(preopens: &[Fd], path: &str) {
    // SAFETY: a call without pointers.
    let renumbered = |from, to| check(unsafe { fd_renumber(from, to) });
    let Some(&root) = preopens.first() else { return };
    report("renumber a stray descriptor", renumbered(777, root).map(|()| "done".to_owned()));
    report("renumber to the largest number", renumbered(root, Fd::MAX).map(|()| "done".to_owned()));
    report("open .. after renumbering over stdin", renumbered(root, 0).and_then(|()| open_and_read(0, 1, path)));
    // SAFETY: a call without pointers.
    let closed = check(unsafe { fd_close(0) });
    report("open with a closed descriptor", closed.and_then(|()| open_and_read(0, 1, "a")));
}

fn is_preopen(fd: Fd) -> bool {
    let mut stat = PreStat { kind: 0, name_length: 0 };
    // SAFETY: `stat` has the layout that the call writes.
    unsafe { fd_prestat_get(fd, &mut stat) == 0 }
}

fn answers(fd: Fd) -> bool {
    let mut stat = FdStat { filetype: 0, flags: 0, rights_base: 0, rights_inheriting: 0 };
    // SAFETY: `stat` has the layout that the call writes.
    let has_stat = unsafe { fd_fdstat_get(fd, &mut stat) == 0 };
    // An empty read, that can't block.
    has_stat || read(fd, &mut []).is_ok()
}

fn open_and_read(folder: Fd, flags: u32, path: &str) -> Attempt {
    let mut opened = 0;
    // SAFETY: the path is valid for its length, and `opened` for a write.
    check(unsafe {
        path_open(folder, flags, path.as_ptr(), path.len(), 0, RIGHT_FD_READ, RIGHT_FD_READ, 0, &mut opened)
    })?;
    let mut start = [0; 64];
    let result = read(opened, &mut start).map(|length| String::from_utf8_lossy(&start[..length]).into_owned());
    // SAFETY: a call without pointers, on a descriptor of our own.
    unsafe { fd_close(opened) };
    Ok(result.unwrap_or_else(|Refusal(reason)| format!("opened, but: {reason}")))
}

fn link_and_read(folder: Fd, original: &str) -> Attempt {
    let stolen = "stolen";
    // SAFETY: both paths are valid for their lengths.
    check(unsafe {
        path_link(folder, SYMLINK_FOLLOW, original.as_ptr(), original.len(), folder, stolen.as_ptr(), stolen.len())
    })?;
    let result = open_and_read(folder, SYMLINK_FOLLOW, stolen);
    // SAFETY: the path is valid for its length.
    unsafe { path_unlink_file(folder, stolen.as_ptr(), stolen.len()) };
    result
}

fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize, Refusal> {
    let iov = IoVec { start: buffer.as_mut_ptr(), length: buffer.len() };
    let mut length = 0;
    // SAFETY: the one buffer is valid for its length, and `length` for a write.
    check(unsafe { fd_read(fd, &iov, 1, &mut length) })?;
    Ok(length)
}

fn check(errno: Errno) -> Result<(), Refusal> {
    match errno {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno.into()).into()),
    }
}
