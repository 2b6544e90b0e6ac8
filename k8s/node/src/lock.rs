//! One installer at a time on a node.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Host};

/// How often it is tried.
const STEP: Duration = Duration::from_millis(100);

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the node's installation in this folder, which is made. Waits so long for another to be done.
    ///
    /// # Errors
    /// Another takes longer; the folder can't be written to.
    pub(crate) fn take(host: &Host, prefix: &Path, state: &Path, patience: Duration) -> Result<Self, Error> {
        let failed = |source| Error::Prefix { path: prefix.to_owned(), source };
        let begun = Instant::now();
        loop {
            host.make_folder(state).map_err(|error| match error {
                Error::Write { source, .. } => failed(source),
                other => other,
            })?;
            let path = host.path(state.join("lock"));
            let file = match File::create(&path) {
                // An uninstaller took the folder away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(failed)?,
            };
            match file.try_lock() {
                Ok(()) if is_still(&file, &path) => return Ok(Self { _file: file }),
                // What was locked is gone with its folder.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) if begun.elapsed() > patience => {
                    return Err(Error::Busy(begun.elapsed().as_secs()));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(STEP),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    matches!((&file.metadata(), &fs::metadata(path)), (Ok(a), Ok(b)) if same(a, b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_next_when_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        let (prefix, state) = (Path::new("/opt/l"), Path::new("/opt/l/state"));
        let take = |patience| Lock::take(&host, prefix, state, patience);
        let first = take(Duration::ZERO).unwrap();
        let refused = take(Duration::from_millis(150)).unwrap_err();
        assert!(matches!(refused, Error::Busy(_)), "{refused}");
        thread::scope(|scope| {
            let next = scope.spawn(|| take(Duration::from_secs(10)).is_ok());
            // As an uninstaller ends.
            host.remove_all(prefix).unwrap();
            drop(first);
            assert!(next.join().unwrap());
        });
        assert!(host.exists(state));
    }

    #[test]
    fn a_prefix_that_can_not_be_written_to_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        fs::write(folder.path().join("opt"), "a file").unwrap();
        let error = Lock::take(&host, Path::new("/opt/l"), Path::new("/opt/l/state"), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("choose another with --prefix"), "{error}");
    }
}
