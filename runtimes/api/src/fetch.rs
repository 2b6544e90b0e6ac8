//! What passes between a runner and `lighter-fetch`, which asks containerd for a container's module.

use std::path::PathBuf;

use lighter_oci::{ContainerdImage, Layer};
use serde::{Deserialize, Serialize};

/// The executable beside the runner's.
pub const PROGRAM: &str = "lighter-fetch";

/// One JSON document on standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Whose module.
    pub image: ContainerdImage,
    /// The cache folder, into which it goes.
    pub cache: PathBuf,
    /// Bytes of modules that the cache may hold.
    pub cache_bytes: u64,
}

/// One JSON document on standard output. A failure is one line on standard error and exit code 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The module is in the cache.
    Module(Layer),
    /// The image has a root filesystem and no module beside it.
    OnlyFiles,
    /// containerd knows of no image for the container.
    NoImage,
}
