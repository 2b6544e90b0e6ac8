//! Tries to get out of the sandbox, and prints a line for each attempt: `NAME: refused (why)` or
//! `NAME: ESCAPED (what it got)`.
//!
//! `escape CANARY [read-only-rootfs]`: CANARY is the absolute path on the host of a file that the guest
//! was not given, and whose text holds the word `canary`. Where a test has put them, these are tried too:
//! `/data` (a volume to write to, in which `link` points to the canary), `/ro` (a read-only volume with a
//! file `file`), and in the image `/link-absolute`, `/link-relative`, `/link-proc` and the folders `/a/b`.

mod files;
#[cfg(target_env = "p1")]
mod preview1;

use std::{env, io};

/// What came of an attempt: evidence of an escape, or why there was none.
type Attempt = Result<String, Refusal>;

struct Refusal(String);

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal(error.to_string())
    }
}

impl Refusal {
    fn new(reason: &str) -> Self {
        Refusal(reason.to_owned())
    }
}

fn report(name: &str, attempt: Attempt) {
    match attempt {
        Ok(evidence) => println!("{name}: ESCAPED ({})", evidence.escape_debug()),
        Err(Refusal(reason)) => println!("{name}: refused ({})", reason.escape_debug()),
    }
}

fn main() {
    let mut arguments = env::args().skip(1);
    let canary = arguments.next().expect("the path of a file that is out of reach");
    let read_only_rootfs = arguments.next().is_some_and(|argument| argument == "read-only-rootfs");

    report("shim's environment", shims_environment());
    files::kernel_files();
    files::traversal(&canary);
    files::symlinks(&canary);
    files::hard_links(&canary);
    files::read_only(read_only_rootfs);
    #[cfg(target_env = "p1")]
    preview1::attack(&canary);
}

/// What containerd sets for its shims.
fn shims_environment() -> Attempt {
    let of_shims = ["TTRPC_ADDRESS", "GRPC_ADDRESS", "NAMESPACE", "MAX_SHIM_VERSION", "SCHED_CORE"];
    match env::vars().find(|(name, _)| of_shims.contains(&name.as_str()) || name.starts_with("CONTAINERD_")) {
        Some((name, value)) => Ok(format!("{name}={value}")),
        None => Err(Refusal::new("not there")),
    }
}
