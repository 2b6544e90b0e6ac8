//! The parent's side of the runner protocol: starts a runner, and holds the init of the container that it builds.
//!
//! ```text
//! Runner::spawn ── created ──▶ Init ── start ──▶ guest runs ── exited ──▶ Exit
//! ```
//!
//! The runner ends once the sandbox stands, and the init, its child, becomes a child of the nearest subreaper: whoever
//! uses this must be one (`PR_SET_CHILD_SUBREAPER`). Used by the shim's daemon and by `lighter run`.
//! Must not know: engines, containerd, where a plan comes from.

mod cgroup;
mod error;
pub mod hooks;
mod loading;
mod process;
mod runner;

pub use cgroup::{Folders, anticipate_move, end_all};
pub use error::Error;
pub use process::{Child, Exit, end_strangers, reap_strangers};
pub use runner::{GuestStdio, Inherited, Init, Runner};
