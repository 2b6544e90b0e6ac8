//! The private folder of one run, and what is left of runs that were killed.
//!
//! `/run/lighter/run-XXXX` for root, `$XDG_RUNTIME_DIR/lighter/run-XXXX` for others: the rootfs and the runner's state. The
//! folder is locked for as long as the run lives. Who starts a run removes those that nobody has locked.

use std::{
    env,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use lighter_launch::{Folders, end_all};
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use super::{removal::remove_tree, user::is_privileged};

/// How the names of the folders begin. The name is the container's id.
const PREFIX: &str = "run-";

/// The private folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    id: String,
    path: PathBuf,
    _alive: Flock<File>,
}

impl RunFolder {
    /// Makes one, and removes what dead runs left.
    pub(crate) fn new() -> Result<Self> {
        Self::below(&parent()?)
    }

    fn below(parent: &Path) -> Result<Self> {
        private_folder(parent)?;
        // So that a folder that isn't locked yet is not taken for dead.
        let _all = lock(parent, FlockArg::LockExclusive)?;
        sweep(parent)?;
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
        let path = made.with_context(|| format!("make a folder in {}", parent.display()))?.keep();
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let alive = lock(&path, FlockArg::LockExclusive)?;
        let rootfs = path.join("rootfs");
        // Whatever the umask says: the guest may be another user.
        fs::create_dir(&rootfs)
            .and_then(|()| fs::set_permissions(&rootfs, Permissions::from_mode(0o755)))
            .with_context(|| format!("make {}", rootfs.display()))?;
        Ok(Self { id, path, _alive: alive })
    }

    /// The container's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Where the runner's state goes.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The root filesystem, empty at first.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// The container's cgroup, below each hierarchy's root. No folder in between, which somebody would have to remove.
    pub(crate) fn cgroup(&self) -> PathBuf {
        cgroup_of(&self.id)
    }

    /// Removes it and the container's cgroup, and ends what is left in that.
    pub(crate) fn remove(self) -> Result<()> {
        remove_run(&self.path, &self.id)
    }
}

fn cgroup_of(id: &str) -> PathBuf {
    PathBuf::from(format!("/lighter-{id}"))
}

/// The folder of all this user's runs.
fn parent() -> Result<PathBuf> {
    Ok(match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        _ if is_privileged()? => "/run/lighter".into(),
        Some(folder) if folder.is_absolute() => folder.join("lighter"),
        _ => env::temp_dir().join(format!("lighter-{}", geteuid())),
    })
}

/// Makes `path` with mode 0700 if it is missing, and checks that it is this user's alone: in `/tmp`, others could have
/// made it.
fn private_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error)
                .with_context(|| format!("make {}; is XDG_RUNTIME_DIR a folder of yours?", path.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        bail!(
            "refusing {}: it must be a folder that only its owner, you, can open (mode 0700); XDG_RUNTIME_DIR names another \
             place",
            path.display()
        );
    }
    Ok(())
}

/// Locks a folder.
fn lock(path: &Path, how: FlockArg) -> Result<Flock<File>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    Flock::lock(file, how)
        .map_err(|(_, errno)| io::Error::from(errno))
        .with_context(|| format!("lock {}", path.display()))
}

/// Removes the folders of runs that were killed. What can't be removed is left for the next time: it keeps nobody from
/// running something else.
fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("list {}", parent.display()))?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if lock(&entry.path(), FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = remove_run(&entry.path(), id);
        }
    }
    Ok(())
}

fn remove_run(path: &Path, id: &str) -> Result<()> {
    // There is none where this user may not make cgroups.
    let cgroup = Folders::named(&cgroup_of(id)).context("find the container's cgroup")?;
    end_all(|| cgroup.pids());
    let removed = cgroup.remove();
    remove_tree(path).with_context(|| format!("remove {}", path.display()))?;
    Ok(removed?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(PREFIX)).collect()
    }

    #[test]
    fn the_dead_are_swept_and_the_living_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("lighter");
        let living = RunFolder::below(&parent).unwrap();
        let dead = RunFolder::below(&parent).unwrap();
        // A guest that did not want to go.
        let stubborn = dead.rootfs().join("a");
        fs::create_dir_all(stubborn.join("b")).unwrap();
        fs::set_permissions(&stubborn, Permissions::from_mode(0o000)).unwrap();
        let (dead_id, dead_lock) = (dead.id().to_owned(), dead._alive);
        assert_eq!(names(&parent).len(), 2);
        drop(dead_lock);
        let another = RunFolder::below(&parent).unwrap();
        let left = names(&parent);
        assert!(left.len() == 2 && !left.contains(&dead_id), "{left:?}");
        another.remove().unwrap();
        living.remove().unwrap();
        assert_eq!(names(&parent), [""; 0]);
    }

    #[test]
    fn a_folder_that_others_can_open_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(RunFolder::below(folder.path()).unwrap_err().to_string().contains("refusing"));
    }
}
