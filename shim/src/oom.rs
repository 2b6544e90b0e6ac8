//! Tells when the kernel has killed a process of a container for want of memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lighter_launch::Folders;
use tokio::time::sleep;

use crate::watch::Watched;

/// Files of v1 and v2 that count kills. Source: the kernel's `cgroup-v1/memory.rst`, "OOM Control", and `cgroup-v2.rst`.
const CONTROL: &str = "memory.oom_control";
const EVENTS: &str = "memory.events";
/// The line of either that counts.
const KILLS: &str = "oom_kill ";

/// v1 tells that memory is out right before it kills, and all cgroups below the one that has none. So many times the
/// counter is looked at after that, and so long is waited at first; twice as long each time, a second in all.
const LOOKS: u32 = 10;
const FIRST: Duration = Duration::from_millis(1);

/// What the kernel has killed in a container.
#[derive(Debug)]
pub(crate) struct OutOfMemory {
    counter: Option<Counter>,
    /// How many were told of.
    told: AtomicU64,
}

#[derive(Debug)]
enum Counter {
    V1 { folder: PathBuf, event: Watched },
    V2(Watched),
}

impl OutOfMemory {
    /// Begins to watch a container's cgroup. One that can't be watched has no news.
    pub(crate) fn watch(folders: &Folders) -> Self {
        let counter = Counter::of(folders).unwrap_or_else(|error| {
            log::warn!("what is killed for want of memory will not be reported: {error}");
            None
        });
        Self { counter, told: AtomicU64::new(0) }
    }

    /// Resolves when there were kills since it last did, at once if there were already. They are counted, not listened for:
    /// it may be dropped, and awaited by several at once, and each kill is told of once.
    pub(crate) async fn killed(&self) {
        while !self.is_news() {
            match &self.counter {
                None => std::future::pending().await,
                Some(Counter::V2(events)) => events.changed().await,
                Some(Counter::V1 { event, .. }) => {
                    event.changed().await;
                    for pause in (0..LOOKS).map(|n| FIRST * 2_u32.pow(n)) {
                        if self.is_news() {
                            return;
                        }
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Whether there were kills that were not told of. They are now.
    fn is_news(&self) -> bool {
        // An error means that there is no such cgroup any more.
        let kills = self.counter.as_ref().and_then(|counter| counter.kills().ok()).unwrap_or_default();
        self.told.fetch_max(kills, Ordering::AcqRel) < kills
    }
}

impl Counter {
    /// Nothing where the container has no limit on memory: no cgroup of its own.
    fn of(folders: &Folders) -> io::Result<Option<Self>> {
        for folder in folders.paths() {
            if folder.join(CONTROL).exists() {
                return Ok(Some(Self::V1 { folder: folder.to_owned(), event: Watched::event(folder, CONTROL)? }));
            }
            if folder.join(EVENTS).exists() {
                return Ok(Some(Self::V2(Watched::text(&folder.join(EVENTS))?)));
            }
        }
        Ok(None)
    }

    /// In the cgroup and those below it.
    fn kills(&self) -> io::Result<u64> {
        match self {
            // Each counts its own.
            Self::V1 { folder, .. } => {
                let counts = Folders::tree(folder).into_iter().map(|folder| kills_in_file(&folder.join(CONTROL)));
                Ok(counts.filter_map(Result::ok).sum())
            }
            Self::V2(events) => Ok(kills_in(&events.read()?)),
        }
    }
}

fn kills_in_file(path: &Path) -> io::Result<u64> {
    Ok(kills_in(&fs::read_to_string(path)?))
}

fn kills_in(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(KILLS)?.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_found_in_both_files() {
        let table = [
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
            ("low 0\nhigh 0\nmax 17\noom 5\noom_kill 4\noom_group_kill 0\n", 4),
            ("", 0),
        ];
        for (text, expected) in table {
            assert_eq!(kills_in(text), expected, "{text}");
        }
    }
}
