//! What configs say: how a container's process starts, and what an artifact's module is.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// What an image's config says of the process. All empty for an artifact, which has no such fields.
///
/// Builders write `null` for what they leave out, so each field takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "PascalCase"), default)]
pub struct Process {
    /// The program, and arguments that the user can't replace by giving others.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Arguments that apply when the user gives none.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Absolute; empty means `/`.
    #[serde(rename(deserialize = "WorkingDir"), deserialize_with = "null_is_default")]
    pub workdir: String,
    /// `user[:group]`, names or numbers; empty means root.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// Names and values.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

/// The parts of an OCI image config that matter here.
/// Source: OCI image-spec, `config.md`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageConfig {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) os: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) config: Process,
}

/// The config of a Wasm artifact.
/// Source: CNCF TAG Runtime, "Wasm OCI Artifact Layout", `application/vnd.wasm.config.v0+json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WasmConfig {
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `wasm`.
    #[serde(deserialize_with = "null_is_default")]
    pub architecture: String,
    /// `wasip1` or `wasip2`.
    #[serde(deserialize_with = "null_is_default")]
    pub os: String,
    /// Digests of the layers, as the manifest lists them.
    #[serde(deserialize_with = "null_is_default")]
    pub layer_digests: Vec<String>,
    /// Of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<WasmComponent>,
}

/// What a component needs and offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WasmComponent {
    /// Names with versions, such as `wasi:cli/run@0.2.0`.
    #[serde(deserialize_with = "null_is_default")]
    pub exports: Vec<String>,
    /// Names with versions, such as `wasi:io/streams@0.2.0`.
    #[serde(deserialize_with = "null_is_default")]
    pub imports: Vec<String>,
    /// The world that it was made for, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_builders_write() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"wasm","os":"wasi","created":"x","history":null,"config":
                {"Entrypoint":["/a.wasm"],"Cmd":null,"Env":["A=1"],"WorkingDir":"/w","User":"1:2","Labels":{"l":"v"}}}"#,
        )
        .unwrap();
        let expected = Process {
            entrypoint: vec!["/a.wasm".to_owned()],
            cmd: Vec::new(),
            env: vec!["A=1".to_owned()],
            workdir: "/w".to_owned(),
            user: "1:2".to_owned(),
            labels: BTreeMap::from([("l".to_owned(), "v".to_owned())]),
        };
        assert_eq!(config.config, expected);
        assert_eq!(serde_json::from_str::<ImageConfig>(r#"{"config":null}"#).unwrap().config, Process::default());
    }

    #[test]
    fn an_artifacts_config_keeps_its_names() {
        let json = r#"{"created":"2024-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":["sha256:a"],"component":{"exports":["wasi:cli/run@0.2.0"],"imports":[]}}"#;
        let config: WasmConfig = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), json);
        assert_eq!(serde_json::from_str::<WasmConfig>("{}").unwrap(), WasmConfig::default());
    }
}
