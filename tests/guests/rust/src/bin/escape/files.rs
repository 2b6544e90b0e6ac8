//! Attacks that any program with files can try.

use std::{
    ffi::{CString, c_char, c_int},
    fs::{self, OpenOptions},
    io::{self, Read},
    path::Path,
};

use crate::{Attempt, Refusal, report};

/// More than the depth of any rootfs on a host.
const MANY: usize = 24;

unsafe extern "C" {
    // wasi-libc's; the standard library has it for WASI only unstably.
    fn symlink(target: *const c_char, link: *const c_char) -> c_int;
}

/// The kernel's file systems, and what leads to them.
pub(crate) fn kernel_files() {
    for path in [
        "/proc/self/mem",
        "/proc/self/maps",
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/config.json",
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/root/etc/passwd",
        "/proc/thread-self/mem",
        "/proc/sys/kernel/core_pattern",
        "/proc/kcore",
        "/sys/kernel/notes",
        "/sys/fs/cgroup/cgroup.procs",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/fd/3",
    ] {
        report(&format!("read {path}"), read(path));
    }
    for path in ["/proc/self/mem", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", "/dev/kmsg"] {
        report(&format!("open {path} to write"), open_to_write(path));
    }
    for path in ["/proc", "/proc/self/fd", "/proc/self/task", "/sys", "/sys/kernel", "/sys/fs/cgroup", "/dev/fd"] {
        report(&format!("list {path}"), list(path));
    }
}

/// `..` beyond the root, from it and from below.
pub(crate) fn traversal(canary: &str) {
    let up = "../".repeat(MANY);
    for (name, path) in [
        ("canary by its absolute path", canary.to_owned()),
        ("canary by .. from the working folder", format!("{up}{canary}")),
        ("canary by .. from the root", format!("/{up}{canary}")),
        ("canary by .. from a subfolder", format!("/a/b/{up}{canary}")),
        ("canary by .. and . mixed", format!("/a/./b/.././{up}./{canary}")),
        ("canary by .. from a volume", format!("/data/{up}{canary}")),
        ("canary by .. through a file", format!("/app.wasm/{up}{canary}")),
    ] {
        report(name, read(&path));
    }
}

/// Links that are there already, then links of its own.
pub(crate) fn symlinks(canary: &str) {
    for path in ["/link-absolute", "/link-relative", "/link-proc", "/data/link", "/data/../link-absolute"] {
        report(&format!("read through {path}"), read(path));
    }
    let targets = [
        ("absolute", canary.to_owned()),
        ("relative", format!("{}{}", "../".repeat(MANY), canary.trim_start_matches('/'))),
        ("proc", "/proc/self/environ".to_owned()),
    ];
    for folder in ["/", "/data/", "/a/b/"] {
        for (kind, target) in &targets {
            let link = format!("{folder}own-{kind}");
            let attempt = make_symlink(target, &link).and_then(|()| read(&link));
            // Most likely it was never made.
            let _ = fs::remove_file(&link);
            report(&format!("read through an own link, {kind}, in {folder}"), attempt);
        }
    }
}

/// A second name, inside, for a file outside.
pub(crate) fn hard_links(canary: &str) {
    let traversal = format!("/{}{canary}", "../".repeat(MANY));
    for original in [canary, &traversal, "/data/link", "/link-absolute", "/link-proc", "/proc/self/environ"] {
        for folder in ["/", "/data/"] {
            let stolen = format!("{folder}stolen");
            let attempt = fs::hard_link(original, &stolen).map_err(Refusal::from).and_then(|()| read(&stolen));
            let _ = fs::remove_file(&stolen);
            report(&format!("hard link {original} in {folder}"), attempt);
        }
    }
}

/// Every way to change what is read-only.
pub(crate) fn read_only(rootfs_too: bool) {
    if Path::new("/ro/file").exists() {
        let changed = |result: io::Result<()>| result.map(|()| "changed".to_owned()).map_err(Refusal::from);
        report("create in /ro", changed(fs::write("/ro/new", "x")));
        report("overwrite in /ro", changed(fs::write("/ro/file", "x")));
        report("append in /ro", open_to_write("/ro/file"));
        report("remove in /ro", changed(fs::remove_file("/ro/file")));
        report("rename in /ro", changed(fs::rename("/ro/file", "/ro/renamed")));
        report("move out of /ro", changed(fs::rename("/ro/file", "/data/moved")));
        report("make a folder in /ro", changed(fs::create_dir("/ro/folder")));
        report("make a symlink in /ro", make_symlink("file", "/ro/symlink").map(|()| "made".to_owned()));
        let alias = fs::hard_link("/ro/file", "/data/alias").map_err(Refusal::from);
        report("write through a hard link out of /ro", alias.and_then(|()| open_to_write("/data/alias")));
    }
    if rootfs_too {
        for path in ["/new", "/a/new", "/app.wasm"] {
            let written = fs::write(path, "x").map(|()| "written".to_owned()).map_err(Refusal::from);
            report(&format!("write {path} in a read-only rootfs"), written);
        }
    }
}

fn read(path: &str) -> Attempt {
    let mut start = Vec::new();
    fs::File::open(path)?.take(64).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

fn open_to_write(path: &str) -> Attempt {
    OpenOptions::new().append(true).open(path)?;
    Ok("opened".to_owned())
}

/// A mount point that is empty gives nothing away.
fn list(path: &str) -> Attempt {
    let names = fs::read_dir(path)?.map(|item| Ok(item?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<io::Result<Vec<String>>>()?;
    if names.is_empty() { Err(Refusal::new("empty")) } else { Ok(names.join(" ")) }
}

fn make_symlink(target: &str, link: &str) -> Result<(), Refusal> {
    let (target, link) = (CString::new(target), CString::new(link));
    let (target, link) = (target.map_err(io::Error::from)?, link.map_err(io::Error::from)?);
    // SAFETY: both are C strings that live during the call.
    match unsafe { symlink(target.as_ptr(), link.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
