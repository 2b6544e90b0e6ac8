//! The engines: which there are, which one is asked for, where their runners are and what those say of themselves.
//!
//! Must not know: how an engine works; what a binary needs of one is `inspect`'s to find.

mod about;
mod installed;

use std::num::NonZeroU32;

use anyhow::{Context, Result};
use lighter_oci::{By, Cache, Choice, Config, Program};

pub(crate) use about::about;
pub(crate) use installed::{Installed, chosen, installed, runner};

/// Those that run WebAssembly, in the order in which people are told of them; the first is the default. The shim has the
/// same list.
pub(crate) const ENGINES: &[&str] = &["wasmtime", "wasmedge", "wamr"];
/// The one that runs native programs under the shim.
pub(crate) const NATIVE: &str = Program::NATIVE;

/// The engine that a command's `--engine`, an annotation and the node's configuration come to.
///
/// # Errors
/// There is no such engine, or the configuration is not valid.
pub(crate) fn choose(flag: Option<&str>, annotation: Option<&str>) -> Result<Choice> {
    let node = Config::of_node()?;
    let by_node = By::Config(format!("the configuration {}", node.origin));
    let wishes = [(By::Flag, flag), (By::Annotation, annotation), (by_node, node.engine.as_deref())];
    Ok(Choice::new(wishes, ENGINES)?)
}

/// Bytes that the cache may hold for each engine, and how many compilers may fill it at once, where somebody says it.
///
/// # Errors
/// The node's configuration is not valid.
pub(crate) fn cache_bounds() -> Result<(u64, Option<NonZeroU32>)> {
    let node = Config::of_node().context("find the size of the cache")?;
    Ok((node.cache_size.unwrap_or(Cache::NODE_BYTES), node.compilers))
}
