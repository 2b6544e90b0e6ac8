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
