//! The beds that the tests of one process share, and their removal when it ends.

use std::sync::{Once, OnceLock};

use crate::{Bed, Suite};

static BEDS: [OnceLock<Result<Bed, String>>; Suite::ALL.len()] = [const { OnceLock::new() }; Suite::ALL.len()];

/// The shared bed of `suite`.
pub(crate) fn get_or_start(suite: Suite) -> Result<&'static Bed, &'static str> {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(remove_at_exit);
    let bed = BEDS[suite as usize].get_or_init(|| Bed::start(suite).map_err(|error| format!("{error:#}")));
    bed.as_ref().map_err(String::as_str)
}

/// Statics are never dropped, and a supervisor would do its work after `cargo test` has returned.
#[expect(unsafe_code, reason = "the standard library has no atexit")]
fn remove_at_exit() {
    extern "C" fn remove() {
        BEDS.iter().filter_map(|bed| bed.get()?.as_ref().ok()).for_each(Bed::remove);
    }
    // SAFETY: `remove` is a plain function that lives as long as the program. It waits for child
    // processes and may write to stderr, both of which exit(3) allows in a handler; a panic in it would
    // abort the process, not unwind out of it.
    let registered = unsafe { libc::atexit(remove) };
    assert_eq!(registered, 0, "atexit");
}
