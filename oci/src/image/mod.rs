//! Image formats: from a descriptor to the one module that Lighter runs.
//!
//! Indexes, manifests and configs come from strangers: each is bounded, compared with its digest, and understood or
//! refused by name. Where blobs come from is the caller's: [`Content`].
//! Source: OCI image-spec 1.1; CNCF TAG Runtime, "Wasm OCI Artifact Layout".

mod config;
pub mod media;
mod platform;
mod resolve;

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256};

pub use config::{Process, WasmComponent, WasmConfig};
pub use platform::{go_architecture, name as platform_name, rank as platform_rank};
pub use resolve::{Document, Format, Image, manifests, resolve};

use crate::{Error, module::hex};

/// Bytes that a manifest, an index or a config may have. Source: distribution-spec, "registries SHOULD enforce some
/// limit … clients SHOULD expect at least 4 MiB".
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Where documents come from: a registry, a store, containerd.
///
/// Asked for manifests, indexes and configs only, and never for more than [`MAX_DOCUMENT`] bytes.
pub trait Content {
    /// What [`Self::read`] fails with.
    type Error: From<Error>;

    /// All bytes of a blob, or `None` where it isn't here. The caller compares them with the descriptor.
    fn read(&self, blob: &Descriptor) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>>;
}

/// Compares a blob with the descriptor that named it.
///
/// # Errors
/// Another size, another digest, or a digest that isn't SHA-256.
pub fn verify(blob: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
    let digest = sha256_of(blob.digest())?;
    if bytes.len() as u64 != blob.size() {
        return Err(Error::BlobSize {
            digest: blob.digest().to_string(),
            expected: blob.size(),
            found: bytes.len() as u64,
        });
    }
    let found = hex(&Sha256::digest(bytes));
    if found != digest {
        return Err(Error::BlobDigest { digest: blob.digest().to_string(), found: format!("sha256:{found}") });
    }
    Ok(())
}

/// The hex digits of a SHA-256 digest: 64 of them, lower case, so they are a safe file name.
///
/// # Errors
/// Another algorithm: nobody uses one for images, and a cache keyed by two would hold things twice.
pub fn sha256_of(digest: &Digest) -> Result<&str, Error> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(digest.digest()),
        _ => Err(Error::DigestAlgorithm { digest: digest.to_string() }),
    }
}
