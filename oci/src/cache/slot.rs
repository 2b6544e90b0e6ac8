//! A counting lock: so many compilers at once, whichever modules, pods and engines they are for.
//!
//! Each slot is the lock of a file in the cache folder, so that the kernel gives back what a killed process held, and no
//! daemon has to count. One of those that wait stands at the front and looks for a free slot; the others look for the
//! front to be free, all equally often. So whoever comes next is drawn by lot, not by who came last: nobody is passed
//! over for ever, and the pods of a whole node cost little while they wait. The kernel's own queue would be in order, but
//! nobody can leave it in time.

use std::{
    num::NonZeroU32,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::lock::KeyLock;
use crate::Error;

/// How often those who wait look whether the front is free.
const WAITING: Duration = Duration::from_millis(10);
/// How often the one at the front looks for a slot. The shortest compilation takes ten times as long.
const FRONT: Duration = Duration::from_millis(2);

/// The right to run a compiler, until it is dropped.
#[derive(Debug)]
pub struct Slot {
    _lock: KeyLock,
}

impl Slot {
    /// Waits for one of `most` in the folder `root`.
    pub(super) fn wait_for(root: &Path, most: NonZeroU32, patience: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + patience;
        let busy = || Error::CompilersBusy { most, waited: patience };
        let front = root.join("compilers.lock");
        let _front = poll(WAITING, deadline, || KeyLock::try_acquire(&front))?.ok_or_else(busy)?;
        let free = || {
            let slots = (0..most.get()).map(|slot| KeyLock::try_acquire(&root.join(format!("compiler-{slot}.lock"))));
            slots.filter_map(Result::transpose).next().transpose()
        };
        let lock = poll(FRONT, deadline, free)?.ok_or_else(busy)?;
        Ok(Self { _lock: lock })
    }
}

/// Tries every so often; `None` where it is too late.
fn poll<T>(
    interval: Duration,
    deadline: Instant,
    attempt: impl Fn() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    loop {
        if let Some(got) = attempt()? {
            return Ok(Some(got));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(interval);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        fs,
        process::Command,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    /// Long enough to have looked for the front.
    const SOON: Duration = Duration::from_millis(100);

    fn two() -> NonZeroU32 {
        NonZeroU32::new(2).unwrap()
    }

    #[test]
    fn all_get_one_and_never_more_than_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let (now, most) = (AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let _slot = Slot::wait_for(folder.path(), two(), PATIENCE).unwrap();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn who_waits_too_long_is_told_what_to_do_and_leaves_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let wait = |patience| Slot::wait_for(folder.path(), two(), patience);
        let (first, _second) = (wait(PATIENCE).unwrap(), wait(PATIENCE).unwrap());
        let error = wait(SOON).unwrap_err().to_string();
        for part in ["one of the 2 compilers", "lighter compile IMAGE", "/etc/lighter/config.toml"] {
            assert!(error.contains(part), "{error}");
        }
        drop(first);
        wait(SOON).unwrap();
    }

    #[test]
    fn a_killed_holder_gives_its_slot_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compiler-0.lock");
        let mut holder = Command::new("flock").arg("--no-fork").arg(&path).args(["sleep", "1000"]).spawn().unwrap();
        while !KeyLock::is_held(&path).unwrap() {
            thread::sleep(FRONT);
        }
        Slot::wait_for(folder.path(), NonZeroU32::MIN, SOON).unwrap_err();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| Slot::wait_for(folder.path(), NonZeroU32::MIN, PATIENCE));
            thread::sleep(SOON);
            assert!(!waiter.is_finished());
            holder.kill().unwrap();
            waiter.join().unwrap().unwrap();
        });
        holder.wait().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
