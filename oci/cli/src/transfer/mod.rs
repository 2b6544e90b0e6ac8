//! Images between the store, registries and archives.

mod archive;
mod extract;
mod load;
mod platform;
mod pull;
mod push;
mod save;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub(crate) use self::{
    archive::{Bounded, MAX_UNPACKED, Member, Members, decompressed, plain},
    extract::extract_module,
    load::{load, load_path},
    platform::Platforms,
    pull::{Remote, pull, remote},
    push::push,
    save::save,
};

/// Blobs that move at once: more gain little, and each takes its buffers.
const AT_ONCE: usize = 3;
/// The annotation under which containerd and Docker keep an image's whole name in a layout.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
