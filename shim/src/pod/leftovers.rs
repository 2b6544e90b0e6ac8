//! What a pod leaves where its daemon was killed: its files, and containers that go on without anybody.
//!
//! containerd runs `delete` for the pod then. For its containers it does so where it ran `start` for them; where the daemon
//! speaks version 3 of the task API, it takes them for the pod's business. So each of those has a note in the pod's bundle
//! of the cgroup that its processes are in.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use lighter_oci::Cgroup;

use super::files;
use crate::{cgroup::Known, error::Error, start::ADDRESS};

/// The folder of notes in a pod's bundle, one file a container.
const NOTES: &str = "containers";

/// Notes where a container's processes are, unless containerd runs `delete` for the container: two at once would be in each
/// other's way.
pub(crate) fn note(bundle: &Path, container: &str, its_bundle: &Path, cgroup: &Cgroup) -> Result<(), Error> {
    if its_bundle.join(ADDRESS).exists() {
        return Ok(());
    }
    let failed = Error::system::<io::Error>("note the container in the pod's bundle");
    let folder = bundle.join(NOTES);
    let json = serde_json::to_vec(cgroup).map_err(|error| failed(error.into()))?;
    fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(container), json)).map_err(failed)
}

/// Takes the note back.
pub(crate) fn forget(bundle: &Path, container: &str) {
    let path = path_of(bundle, container);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("remove {}: {error}", path.display()),
        _ => {}
    }
}

/// Ends containers that were noted, removes their cgroups, and removes the pod's files. Where there is no pod, it does
/// nothing. Goes on after an error and returns the first.
pub(crate) fn remove_leftovers(bundle: &Path) -> Result<(), Error> {
    let mut first = Ok(());
    for container in names(&bundle.join(NOTES)) {
        let removed = removed(bundle, &container);
        if removed.is_ok() {
            forget(bundle, &container);
        }
        first = first.and(removed);
    }
    first.and(files::remove(bundle))
}

fn removed(bundle: &Path, container: &str) -> Result<(), Error> {
    let failed = Error::system::<io::Error>("read the note of a container in the pod's bundle");
    let json = fs::read(path_of(bundle, container)).map_err(&failed)?;
    let cgroup = serde_json::from_slice(&json).map_err(|error| failed(error.into()))?;
    Known::Named(cgroup).remove(container)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn path_of(bundle: &Path, container: &str) -> PathBuf {
    bundle.join(NOTES).join(container)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_and_go() {
        let bundle = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { path: "/pods/c".into(), systemd: false };
        let containers = tempfile::tempdir().unwrap();
        note(bundle.path(), "c", containers.path(), &cgroup).unwrap();
        note(bundle.path(), "d", containers.path(), &cgroup).unwrap();
        fs::write(containers.path().join(ADDRESS), "unix:///a").unwrap();
        note(bundle.path(), "started", containers.path(), &cgroup).unwrap();
        let json = fs::read(path_of(bundle.path(), "c")).unwrap();
        assert_eq!(serde_json::from_slice::<Cgroup>(&json).unwrap(), cgroup);
        forget(bundle.path(), "c");
        forget(bundle.path(), "c");
        assert_eq!(names(&bundle.path().join(NOTES)), ["d"]);
    }
}
