//! Stops the processes of a container where they are, and lets them go on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use lighter_launch::Folders;
use tokio::time::{Instant, sleep, timeout};

use crate::{error::Error, watch::Watched};

/// How long processes may take to stand still: one in the middle of a system call that can't be interrupted, such as a
/// read from a disk that does not answer, does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited at first, and at most, before the v1 freezer is asked again.
const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// Files of v1 and v2. Source: the kernel's `cgroup-v1/freezer-subsystem.rst` and `cgroup-v2.rst`.
const STATE: &str = "freezer.state";
const FREEZE: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";

/// The freezer of a container's cgroup.
#[derive(Debug)]
pub(crate) enum Freezer {
    /// The cgroup and those below it, each with a state of its own.
    V1(Vec<PathBuf>),
    V2(PathBuf),
}

impl Freezer {
    /// Nothing where the cgroup has none, or is gone. Where both versions are mounted, the first has it all.
    pub(crate) fn of(folders: &Folders) -> Option<Self> {
        let having = |name: &str| folders.paths().find(|folder| folder.join(name).exists());
        match having(STATE) {
            Some(folder) => Some(Self::V1(Folders::tree(folder))),
            None => having(FREEZE).map(|folder| Self::V2(folder.to_owned())),
        }
    }

    /// Returns when every process stands still. If one does not within seconds, all go on, and it is an error.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        let (folder, frozen) = match self {
            Self::V1(tree) => (tree.first().map_or(Path::new(""), PathBuf::as_path), freeze_v1(tree).await),
            Self::V2(folder) => (folder.as_path(), freeze_v2(folder).await),
        };
        let Err(error) = frozen else { return Ok(()) };
        self.thaw()?;
        Err(failed(folder)(error))
    }

    /// Lets them go on. That they do already is no error.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        let write = |folder: &PathBuf, name, state| match fs::write(folder.join(name), state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map_err(failed(folder)),
        };
        match self {
            // A container that has the right to may have frozen a part of itself, which then could not be killed.
            Self::V1(tree) => tree.iter().try_for_each(|folder| write(folder, STATE, "THAWED")),
            Self::V2(folder) => write(folder, FREEZE, "0"),
        }
    }
}

async fn freeze_v1(tree: &[PathBuf]) -> io::Result<()> {
    let Some(state) = tree.first().map(|folder| folder.join(STATE)) else { return Ok(()) };
    let begun = Instant::now();
    let mut pause = FIRST;
    loop {
        // Again each time: a process that was forked meanwhile, or could not be stopped just then, is tried once more.
        fs::write(&state, "FROZEN")?;
        if fs::read_to_string(&state)?.trim() == "FROZEN" {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(stubborn());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

async fn freeze_v2(folder: &Path) -> io::Result<()> {
    let events = Watched::text(&folder.join(EVENTS))?;
    fs::write(folder.join(FREEZE), "1")?;
    let frozen = async {
        while !events.read()?.lines().any(|line| line == "frozen 1") {
            events.changed().await;
        }
        Ok(())
    };
    timeout(PATIENCE, frozen).await.unwrap_or_else(|_| Err(stubborn()))
}

fn stubborn() -> io::Error {
    let seconds = PATIENCE.as_secs();
    io::Error::other(format!("a process could not be stopped within {seconds} s, so all go on; try again"))
}

fn failed(folder: &Path) -> impl Fn(io::Error) -> Error {
    move |error| Error::Cgroup { path: folder.to_owned(), why: format!("freezer: {error}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Child, Command, id};

    use super::*;

    /// A cgroup with a process that does something all the time.
    struct Busy {
        folder: PathBuf,
        process: Child,
    }

    impl Busy {
        /// Nothing where there is no such hierarchy, or this process may not make cgroups.
        fn below(hierarchy: &str) -> Option<Self> {
            let folder = Path::new(hierarchy).join(format!("lighter-freezer-{}", id()));
            if let Err(error) = fs::create_dir(&folder) {
                eprintln!("skipped: {}: {error}", folder.display());
                return None;
            }
            let process = Command::new("sh").args(["-c", "while true; do :; done"]).spawn().unwrap();
            fs::write(folder.join("cgroup.procs"), process.id().to_string()).unwrap();
            Some(Self { folder, process })
        }

        fn works(&self) -> bool {
            let time = || {
                let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
                stat.split(' ').nth(13).unwrap().to_owned()
            };
            let before = time();
            std::thread::sleep(Duration::from_millis(200));
            time() != before
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.process.kill().and_then(|()| self.process.wait());
            let _ = fs::remove_dir(&self.folder);
        }
    }

    #[tokio::test]
    async fn what_is_frozen_stands_still_until_it_is_thawed() {
        type OfVersion = fn(&Busy) -> Freezer;
        let hierarchies: [(&str, OfVersion); 3] = [
            ("/sys/fs/cgroup/freezer", |busy| Freezer::V1(vec![busy.folder.clone()])),
            ("/sys/fs/cgroup/unified", |busy| Freezer::V2(busy.folder.clone())),
            ("/sys/fs/cgroup", |busy| Freezer::V2(busy.folder.clone())),
        ];
        for (hierarchy, freezer) in hierarchies {
            // One of them is not a hierarchy: it holds the others, or none of them is there.
            if !Path::new(hierarchy).join("cgroup.procs").exists() {
                continue;
            }
            let Some(busy) = Busy::below(hierarchy) else { continue };
            let freezer = freezer(&busy);
            assert!(busy.works(), "{hierarchy}");
            for _ in 0..2 {
                freezer.freeze().await.unwrap();
                assert!(!busy.works(), "{hierarchy}");
                freezer.thaw().unwrap();
                assert!(busy.works(), "{hierarchy}");
            }
        }
    }
}
