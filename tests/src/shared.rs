//! The beds that the tests of one process share, and their removal when it ends.

use std::sync::{Mutex, Once, OnceLock, PoisonError};

use crate::{Bed, Suite};

static BEDS: [OnceLock<Result<Bed, String>>; Suite::ALL.len()] = [const { OnceLock::new() }; Suite::ALL.len()];

/// Shared beds with something more in them.
static MORE: Mutex<Vec<&Bed>> = Mutex::new(Vec::new());

/// The shared bed of `suite`.
pub(crate) fn get_or_start(suite: Suite) -> Result<&'static Bed, &'static str> {
    remove_at_exit();
    let bed = BEDS[suite as usize].get_or_init(|| Bed::start(suite).map_err(|error| format!("{error:#}")));
    bed.as_ref().map_err(String::as_str)
}

/// Shares a bed that was made in another way.
pub(crate) fn share(bed: Bed) -> &'static Bed {
    remove_at_exit();
    let bed = Box::leak(Box::new(bed));
    MORE.lock().unwrap_or_else(PoisonError::into_inner).push(bed);
    bed
}

/// Statics are never dropped, and a supervisor would do its work after `cargo test` has returned.
#[expect(unsafe_code, reason = "the standard library has no atexit")]
fn remove_at_exit() {
    extern "C" fn remove() {
        BEDS.iter().filter_map(|bed| bed.get()?.as_ref().ok()).for_each(Bed::remove);
        MORE.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|bed| bed.remove());
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `remove` is a plain function that lives as long as the program. It waits for child
        // processes and may write to stderr, both of which exit(3) allows in a handler; a panic in it would
        // abort the process, not unwind out of it.
        let registered = unsafe { libc::atexit(remove) };
        assert_eq!(registered, 0, "atexit");
    });
}
