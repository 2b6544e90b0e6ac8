//! WasmEdge behind the backend contract: what its runner and its compiler have in common.
//!
//! `lighter-wasmedge` maps code that `lighter-compile-wasmedge` made, both by the libwasmedge of the node. Must not know:
//! containers, where code is kept.

mod backend;
pub mod engine;
mod messages;
mod module;
mod native;
mod plugins;
pub mod sections;
mod wasi;

pub use backend::WasmEdge;
