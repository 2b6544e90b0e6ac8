//! Installs Lighter on a node, upgrades it, and takes it away without a trace.
//!
//! Decisions are functions of values ([`config`], [`distribution`]); what acts writes a [`journal`] first, so that
//! whatever happens between two steps can be undone by the next run. containerd is reached through [`daemon::Daemon`]
//! only. Must not know: engines, the shim's inside.

pub mod cluster;
pub mod config;
pub mod daemon;
pub mod distribution;
mod error;
pub mod host;
pub mod journal;
mod lock;
pub mod node;
pub mod programs;

pub use error::Error;
pub use host::Host;
pub use node::{Node, Report};
