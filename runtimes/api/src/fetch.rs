//! What passes between a runner and `lighter-fetch`, which gets a container's module where it is not in its root
//! filesystem. The runner hands on what the plan says of the image, and knows nothing of where that is.

use std::path::PathBuf;

use lighter_oci::{ContainerImage, Layer};
use serde::{Deserialize, Serialize};

/// The executable beside the runner's.
pub const PROGRAM: &str = "lighter-fetch";

/// One JSON document on standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Whose module.
    pub image: ContainerImage,
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
    /// The container's image has no such layer.
    None {
        /// A clause for the user, where there is more to say than what is wrong with the root filesystem.
        why: Option<String>,
    },
}
