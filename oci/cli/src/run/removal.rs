//! Removing what a guest may have left: folders that nobody may open, nested deeper than paths are long, descriptors are
//! many and stacks are large.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Removes the folder `root` and all that is in it; none there is no error. What is right below it has plain names of ours.
///
/// A folder within a folder is moved up to `root` before anybody looks into it, so that none is ever far from there.
pub(super) fn remove_tree(root: &Path) -> io::Result<()> {
    match open_up(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    }
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            is_empty = false;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            flatten(&entry.path(), root, &mut moved)?;
            match fs::remove_dir(entry.path()) {
                // Not every filesystem lists all while it changes: there is a next round.
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
                removed => removed?,
            }
        }
        if is_empty {
            return fs::remove_dir(root);
        }
    }
}

/// Empties a folder: files go, folders move to `root`.
fn flatten(folder: &Path, root: &Path, moved: &mut u64) -> io::Result<()> {
    open_up(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // Moving a folder writes to it: its `..` is another one then.
            open_up(&entry.path())?;
            fs::rename(entry.path(), root.join(format!(".moved-{moved}")))?;
            *moved += 1;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::*;

    /// Deeper than a path can be long, than a process has descriptors, and than its stack is.
    const DEPTH: usize = 30_000;

    #[test]
    fn what_is_deep_or_closed_goes_and_what_links_lead_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "untouched").unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/closed/inner")).unwrap();
        fs::write(root.join("a/closed/inner/file"), "x").unwrap();
        symlink(&outside, root.join("a/link")).unwrap();
        let mut deepest = openat(CWD, &root, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            mkdirat(&deepest, "d", Mode::RWXU).unwrap();
            deepest = openat(&deepest, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        for closed in ["a/closed/inner", "a/closed", "a", ""] {
            fs::set_permissions(root.join(closed), Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
        remove_tree(&root).unwrap();
    }
}
