//! Manifests and configs, written so that the same values give the same bytes: fields in one order, maps sorted.

use std::collections::BTreeMap;

use lighter_oci::{
    Kind,
    image::{WasmComponent, WasmConfig, media},
};
use oci_spec::image::{self as spec, Descriptor, MediaType};
use serde::Serialize;

use super::{Recipe, Timestamp};
use crate::inspect::Binary;

/// The platform of images that containers are made of, as users give it to `--platform`.
pub(super) const OS: &str = "wasi";
pub(super) const ARCHITECTURE: &str = "wasm";

/// An image's manifest. No `artifactType`: the config's media type says it.
/// Source: OCI image-spec 1.1, `manifest.md`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<'a> {
    schema_version: u32,
    media_type: MediaType,
    config: Descriptor,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl<'a> Manifest<'a> {
    pub(super) fn new(config: Descriptor, layers: &'a [Descriptor], annotations: &'a BTreeMap<String, String>) -> Self {
        Self { schema_version: spec::SCHEMA_VERSION, media_type: MediaType::ImageManifest, config, layers, annotations }
    }
}

/// The config of a container image.
/// Source: OCI image-spec 1.1, `config.md`.
#[derive(Serialize)]
pub(super) struct ImageConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    architecture: &'static str,
    os: &'static str,
    config: Process<'a>,
    rootfs: RootFs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Process<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    env: &'a [String],
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    working_dir: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: Vec<String>,
}

impl<'a> ImageConfig<'a> {
    /// The config for these layers, none of which is compressed.
    ///
    /// Layers of files have diff ids, a module has none: containerd pairs diff ids with the layers that it unpacks, and
    /// refuses an image that has more. Uncompressed, a layer's diff id is its own digest.
    pub(super) fn new(
        recipe: &'a Recipe,
        entrypoint: &'a [String],
        annotations: &'a BTreeMap<String, String>,
        layers: &[Descriptor],
    ) -> Self {
        Self {
            created: recipe.created.map(Timestamp::rfc3339),
            author: annotations.get(spec::ANNOTATION_AUTHORS).map(String::as_str),
            architecture: ARCHITECTURE,
            os: OS,
            config: Process {
                user: &recipe.user,
                env: &recipe.env,
                entrypoint,
                cmd: &recipe.cmd,
                working_dir: &recipe.workdir,
                labels: &recipe.labels,
            },
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: layers
                    .iter()
                    .filter(|layer| media::is_tar_layer(layer.media_type()))
                    .map(|layer| layer.digest().to_string())
                    .collect(),
            },
        }
    }
}

/// The config of a Wasm artifact. Its date is not optional, so without one it is the beginning of time.
/// Source: CNCF TAG Runtime, "Wasm OCI Artifact Layout".
pub(super) fn artifact_config(
    binary: &Binary,
    created: Option<Timestamp>,
    annotations: &BTreeMap<String, String>,
    layers: &[Descriptor],
) -> WasmConfig {
    WasmConfig {
        created: Some(created.unwrap_or_default().rfc3339()),
        author: annotations.get(spec::ANNOTATION_AUTHORS).cloned(),
        architecture: ARCHITECTURE.to_owned(),
        os: match binary.kind {
            Kind::Module => "wasip1",
            // Also for WASI 0.3: the layout knows no third value, and its imports tell.
            Kind::Component => "wasip2",
        }
        .to_owned(),
        layer_digests: layers.iter().map(|layer| layer.digest().to_string()).collect(),
        component: (binary.kind == Kind::Component).then(|| WasmComponent {
            exports: binary.export_names(),
            imports: binary.import_names(),
            // A binary doesn't tell which world it was made for.
            target: None,
        }),
    }
}
