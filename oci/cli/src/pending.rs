//! Files that appear when they are whole.

use std::{
    fs::{self, File, Permissions},
    hash::{BuildHasher, RandomState},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat, open, rename, unlink},
    io::Errno,
};
use tempfile::TempPath;

/// What a temporary name begins with, where there has to be one.
const PREFIX: &str = ".lighter-";

/// A file without a name: whatever ends the process, nothing is left of it.
///
/// Where the filesystem knows no such files, one under a temporary name, which only [`Drop`] removes.
#[derive(Debug)]
pub(crate) struct Pending {
    file: File,
    named: Option<TempPath>,
    folder: PathBuf,
}

impl Pending {
    /// A new file on the filesystem of `folder`, with this mode as far as the umask allows.
    pub(crate) fn new(folder: &Path, mode: u32) -> io::Result<Self> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match open(folder, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => Ok(Self { file: File::from(file), named: None, folder: folder.to_owned() }),
            // What kernels and filesystems without O_TMPFILE say.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::named(folder, mode),
            Err(errno) => Err(errno.into()),
        }
    }

    fn named(folder: &Path, mode: u32) -> io::Result<Self> {
        let file =
            tempfile::Builder::new().prefix(PREFIX).permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
        let (file, path) = file.into_parts();
        Ok(Self { file, named: Some(path), folder: folder.to_owned() })
    }

    /// To be written to.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Waits for the disk and gives the file its name, in the folder's filesystem. What had the name is replaced at once.
    pub(crate) fn publish(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(named) = self.named {
            return named.persist(path).map_err(|error| error.error);
        }
        match link(&self.file, path) {
            Err(Errno::EXIST) => (),
            linked => return Ok(linked?),
        }
        // A link replaces nothing, a rename does.
        loop {
            let chance = RandomState::new().hash_one(path);
            let temporary = self.folder.join(format!("{PREFIX}{chance:016x}"));
            match link(&self.file, &temporary) {
                Err(Errno::EXIST) => continue,
                linked => linked?,
            }
            return rename(&temporary, path).map_err(|errno| {
                // Best effort: the rename's error is the one to tell.
                let _ = unlink(&temporary);
                errno.into()
            });
        }
    }
}

/// Has a file written, which appears under its name when it is whole. A pipe or device is written to as it is.
pub(crate) async fn write_whole<T>(
    path: &Path,
    write: impl AsyncFnOnce(&mut File) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let named = || path.display().to_string();
    if let Some(mut file) = open_special(path).with_context(|| format!("open {}", named()))? {
        return write(&mut file).await.with_context(named);
    }
    let made = Pending::new(path.parent().unwrap_or(path), 0o666);
    let mut pending = made.with_context(|| format!("create {}", named()))?;
    let written = write(pending.file()).await.with_context(named)?;
    pending.publish(path).with_context(|| format!("write {}", named()))?;
    Ok(written)
}

/// What is at `path` if it is not a file to be replaced: a pipe or a device, or a link such as `/dev/stdout`. Open for
/// writing, to be written to as it is.
fn open_special(path: &Path) -> io::Result<Option<File>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(None),
        Ok(_) => File::options().write(true).truncate(true).open(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives an open file a name. Source: open(2), O_TMPFILE.
fn link(file: &File, path: &Path) -> Result<(), Errno> {
    linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, path, AtFlags::SYMLINK_FOLLOW)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Write, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_file_appears_whole_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let count = || fs::read_dir(folder.path()).unwrap().count();
        for (at, make) in [Pending::new, Pending::named, Pending::new].into_iter().enumerate() {
            let mut pending = make(folder.path(), 0o640).unwrap();
            write!(pending.file(), "number {at}").unwrap();
            pending.publish(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("number {at}"));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
            assert_eq!(count(), 1);
            drop(make(folder.path(), 0o644).unwrap());
            assert_eq!(count(), 1, "dropped");
        }
        assert!(
            Pending::new(folder.path(), 0o644).unwrap().publish(folder.path()).is_err(),
            "a folder is not replaced"
        );
        assert_eq!(count(), 1);
        assert!(Pending::new(&folder.path().join("absent"), 0o644).is_err());
    }

    #[test]
    fn devices_and_links_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        assert!(open_special(&file).unwrap().is_none());
        fs::write(&file, "longer than that").unwrap();
        assert!(open_special(&file).unwrap().is_none());
        symlink(&file, &link).unwrap();
        open_special(&link).unwrap().unwrap().write_all(b"short").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "short");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(open_special(Path::new("/dev/null")).unwrap().is_some());
        assert!(open_special(folder.path()).is_err());
    }
}
