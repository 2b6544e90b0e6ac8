//! Media types: which there are, and what each means.

use oci_spec::image::MediaType;

/// Config of a CNCF Wasm artifact.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Config of what `wasm-to-oci` pushed before there was a specification.
pub const WASM_CONFIG_V1: &str = "application/vnd.wasm.config.v1+json";
/// What stands for "no config" since OCI 1.1, such as `oras push` writes.
pub const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
/// A module or a component, as it is.
pub const WASM_LAYER: &str = "application/wasm";
/// Every media type under which a layer is a module or a component.
pub const WASM_LAYERS: &[&str] = &[
    WASM_LAYER,
    // wasm-pkg-tools and its like before the CNCF layout.
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    // wasm-to-oci.
    "application/vnd.wasm.content.layer.v1+wasm",
];

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYERS: &[&str] = &[
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// The media types of manifests and indexes, as a client accepts them from a registry.
pub const DOCUMENTS: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    DOCKER_MANIFEST,
    DOCKER_INDEX,
];

/// Whether it is a list of manifests.
#[must_use]
pub fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || is_one_of(media_type, &[DOCKER_INDEX])
}

/// Whether it is an image's manifest.
#[must_use]
pub fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest || is_one_of(media_type, &[DOCKER_MANIFEST])
}

/// Whether it is the config of an image that a container can be made of.
#[must_use]
pub fn is_image_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig || is_one_of(media_type, &[DOCKER_CONFIG])
}

/// Whether it is the config of an artifact that holds a module and nothing else.
#[must_use]
pub fn is_artifact_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::EmptyJSON || is_one_of(media_type, &[WASM_CONFIG, WASM_CONFIG_V1])
}

/// Whether the layer is a module or a component.
#[must_use]
pub fn is_wasm_layer(media_type: &MediaType) -> bool {
    is_one_of(media_type, WASM_LAYERS)
}

/// Whether the layer is a set of files, which a snapshotter unpacks.
#[must_use]
pub fn is_tar_layer(media_type: &MediaType) -> bool {
    matches!(
        media_type,
        MediaType::ImageLayer
            | MediaType::ImageLayerGzip
            | MediaType::ImageLayerZstd
            | MediaType::ImageLayerNonDistributable
            | MediaType::ImageLayerNonDistributableGzip
            | MediaType::ImageLayerNonDistributableZstd
    ) || is_one_of(media_type, DOCKER_LAYERS)
}

fn is_one_of(media_type: &MediaType, names: &[&str]) -> bool {
    matches!(media_type, MediaType::Other(name) if names.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_media_type_has_one_meaning() {
        type Meaning = (&'static str, fn(&MediaType) -> bool);
        let meanings: [Meaning; 6] = [
            ("index", is_index),
            ("manifest", is_manifest),
            ("image config", is_image_config),
            ("artifact config", is_artifact_config),
            ("wasm layer", is_wasm_layer),
            ("tar layer", is_tar_layer),
        ];
        let table = [
            ("application/vnd.oci.image.index.v1+json", "index"),
            (DOCKER_INDEX, "index"),
            ("application/vnd.oci.image.manifest.v1+json", "manifest"),
            (DOCKER_MANIFEST, "manifest"),
            ("application/vnd.oci.image.config.v1+json", "image config"),
            (DOCKER_CONFIG, "image config"),
            (WASM_CONFIG, "artifact config"),
            (WASM_CONFIG_V1, "artifact config"),
            (EMPTY_CONFIG, "artifact config"),
            (WASM_LAYERS[0], "wasm layer"),
            (WASM_LAYERS[1], "wasm layer"),
            (WASM_LAYERS[2], "wasm layer"),
            ("application/vnd.oci.image.layer.v1.tar", "tar layer"),
            ("application/vnd.oci.image.layer.v1.tar+gzip", "tar layer"),
            ("application/vnd.oci.image.layer.v1.tar+zstd", "tar layer"),
            (DOCKER_LAYERS[1], "tar layer"),
        ];
        for (name, expected) in table {
            let media_type = MediaType::from(name);
            let found: Vec<&str> = meanings.iter().filter(|(_, is)| is(&media_type)).map(|(name, _)| *name).collect();
            assert_eq!(found, [expected], "{name}");
        }
        for (name, is) in meanings {
            assert!(!is(&MediaType::from("text/html")), "{name}");
        }
    }
}
