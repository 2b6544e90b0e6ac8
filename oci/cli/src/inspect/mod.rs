//! Looks into images and binaries.
//!
//! Owns: what a module or a component says of itself, what it needs of an engine, which engines have that, what it would be
//! granted. Must not know: how an engine works; the runners tell what they provide.

mod binary;
mod engines;
mod entry;
mod features;
mod grants;
mod metadata;
mod wit;

pub(crate) use binary::{Binary, Item, MAX_BYTES, read};
pub(crate) use engines::{Engine, judge_installed};
pub(crate) use entry::{Entry, entry};
pub(crate) use grants::{Grant, grants};
pub(crate) use metadata::Metadata;
pub(crate) use wit::{Wit, wit};
