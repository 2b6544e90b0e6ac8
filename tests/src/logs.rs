//! The daemons' logs, shown when a test fails.

use std::{
    cell::RefCell,
    fmt, fs, panic,
    path::{Path, PathBuf},
    sync::Once,
};

use crate::Suite;

/// Lines of each log to show.
const TAIL: usize = 40;

/// Characters of each line to show: containerd prints its whole configuration in one.
const LINE: usize = 400;

/// The logs of a bed's daemons; displayed, the last lines of each.
#[derive(Clone, Debug)]
pub struct Logs {
    suite: Suite,
    folder: PathBuf,
}

thread_local! {
    /// Of the beds that the test in this thread uses.
    static SHOWN: RefCell<Vec<Logs>> = const { RefCell::new(Vec::new()) };
}

impl Logs {
    pub(crate) fn new(suite: Suite, folder: PathBuf) -> Logs {
        Logs { suite, folder }
    }

    /// From now on a panic in this thread prints the tails of these logs; libtest runs each test in a
    /// thread of its own.
    pub(crate) fn show_on_panic(self) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let default = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                default(info);
                SHOWN.with_borrow(|shown| shown.iter().for_each(|logs| eprint!("{logs}")));
            }));
        });
        SHOWN.with_borrow_mut(|shown| {
            shown.retain(|logs| logs.folder != self.folder);
            shown.push(self);
        });
    }
}

impl fmt::Display for Logs {
    /// The last lines of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            writeln!(f, "--- {} of {}", Path::new(&file.file_name()).display(), self.suite)?;
            let log = fs::read(file.path()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            tail.iter().try_for_each(|line| writeln!(f, "{line:.LINE$}"))?;
        }
        Ok(())
    }
}
