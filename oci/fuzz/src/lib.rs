//! Blobs for the fuzz targets: a descriptor that names given bytes, so that digests are no wall to the fuzzer.

use oci_spec::image::Descriptor;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The media types of documents, one of which a byte chooses.
pub const DOCUMENTS: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.wasm.config.v0+json",
];

/// `sha256:` and the digest in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The descriptor of a document of this media type.
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    let descriptor = json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()});
    serde_json::from_value(descriptor).expect("a descriptor")
}
