//! From an OCI bundle to a validated [`Plan`], and the cache of compiled code.
//!
//! Owns: what a bundle means for a WebAssembly guest, which bytes are WebAssembly, where native code is kept.
//! Must not know: engines, ttrpc, how a sandbox is built.

mod annotations;
mod cache;
mod config;
mod docker_init;
mod engine;
mod error;
mod grants;
mod hooks;
mod http;
pub mod image;
mod module;
mod native_spec;
mod plan;
mod program;
pub mod quantity;
mod sandbox_spec;

pub use annotations::ANNOTATION_PREFIX;
pub use cache::{Cache, Entry, Fetch, Key, Layer, Listed, Modules, Slot, Tier, Turn, What};
pub use config::Config;
pub use engine::{By, Choice, listed};
pub use error::Error;
pub use grants::{Grants, Network};
pub use hooks::Hooks;
pub use http::{HostPattern, Http};
pub use module::{Kind, Module, sniff};
pub use plan::{Cgroup, ContainerImage, Guest, Plan, PlanRequest, Source, Terminal};
pub use program::Program;
pub use sandbox_spec::KERNEL_FILESYSTEMS;
