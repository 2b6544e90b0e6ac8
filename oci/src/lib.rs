//! From an OCI bundle to a validated [`Plan`], and the cache of compiled code.
//!
//! Owns: what a bundle means for a WebAssembly guest, which bytes are WebAssembly, where native code is kept.
//! Must not know: engines, ttrpc, how a sandbox is built.

mod cache;
mod error;
mod grants;
mod http;
pub mod image;
mod module;
mod plan;
mod sandbox_spec;

pub use cache::{Cache, Entry, Fetch, Key, Layer, Listed, Modules, Tier, Turn, What};
pub use error::Error;
pub use grants::{Grants, Network};
pub use http::{HostPattern, Http};
pub use module::{Kind, Module, sniff};
pub use plan::{Cgroup, ContainerImage, Guest, Plan, PlanRequest, Source};
pub use sandbox_spec::KERNEL_FILESYSTEMS;

/// Prefix of every annotation that Lighter reads.
pub const ANNOTATION_PREFIX: &str = "run.lighter.";
