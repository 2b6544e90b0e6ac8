//! Makes images of a module.
//!
//! Owns: what each format looks like, and that the same input gives the same digest. Must not know: registries, daemons.

mod annotations;
mod documents;
mod files;
mod image;
mod timestamp;

pub(crate) use files::Source;
pub(crate) use image::{Built, Format, Recipe, build};
pub(crate) use timestamp::Timestamp;
