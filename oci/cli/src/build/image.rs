//! From a module and a recipe to blobs in the store.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context, Result, bail};
use lighter_oci::image::media;
use oci_spec::image::{ANNOTATION_TITLE, Descriptor, Digest, MediaType};
use serde::Serialize;

use super::{
    Timestamp,
    annotations::annotations,
    documents::{ARCHITECTURE, ImageConfig, Manifest, OS, artifact_config},
    files::{Files, Source},
};
use crate::{inspect::Binary, store::Store};

/// How an image holds its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A CNCF Wasm OCI artifact: the module and what it imports. For registries and `lighter run`
    Artifact,
    /// A container image whose module is a layer of its own: has an entrypoint, files, labels. For containerd and Docker from
    /// version 27 on
    Image,
    /// A container image like any other, with the module as a file. For every Docker with the containerd image store
    Tar,
}

/// What the user says of an image.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) format: Format,
    /// The module's file name without folders and `.wasm`.
    pub(crate) name: String,
    pub(crate) created: Option<Timestamp>,
    /// Empty for the default: the module's file in the root folder.
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    /// Absolute, or empty.
    pub(crate) workdir: String,
    pub(crate) user: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) files: Vec<Source>,
}

/// An image that is in the store, but has no name yet.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) manifest: Descriptor,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// As `os/architecture`.
    pub(crate) platform: String,
}

impl Built {
    /// Bytes of all its blobs.
    pub(crate) fn size(&self) -> u64 {
        let layers: u64 = self.layers.iter().map(Descriptor::size).sum();
        self.manifest.size() + self.config.size() + layers
    }
}

/// Writes the image of `binary`, whose bytes are `bytes`, into the store.
///
/// # Errors
/// The recipe asks for what the format can't hold; a file can't be read; the store can't be written.
pub(crate) fn build(store: &Store, binary: &Binary, bytes: &[u8], recipe: &Recipe) -> Result<Built> {
    recipe.check()?;
    let annotations = annotations(&binary.metadata, recipe.created, &recipe.annotations);
    let entrypoint = recipe.entrypoint_or_default();
    let (layers, config, config_type, platform) = match recipe.format {
        Format::Artifact => {
            let layers = vec![module_layer(store, bytes, &recipe.name)?];
            let config = artifact_config(binary, recipe.created, &annotations, &layers);
            let platform = format!("{}/{}", config.os, config.architecture);
            (layers, json(&config)?, media::WASM_CONFIG.into(), platform)
        }
        Format::Image => {
            let mut files = Files::default();
            let mut layers = Vec::new();
            recipe.add_files(&mut files)?;
            if !files.is_empty() {
                layers.push(files_layer(store, &files, recipe.created)?);
            }
            layers.push(module_layer(store, bytes, &recipe.name)?);
            let config = json(&ImageConfig::new(recipe, &entrypoint, &annotations, &layers))?;
            (layers, config, MediaType::ImageConfig, format!("{OS}/{ARCHITECTURE}"))
        }
        Format::Tar => {
            let mut files = Files::default();
            files.add_bytes(&recipe.module_path(&entrypoint)?, bytes)?;
            recipe.add_files(&mut files)?;
            let layers = vec![files_layer(store, &files, recipe.created)?];
            let config = json(&ImageConfig::new(recipe, &entrypoint, &annotations, &layers))?;
            (layers, config, MediaType::ImageConfig, format!("{OS}/{ARCHITECTURE}"))
        }
    };
    let config = put(store, &config, config_type)?;
    let manifest = json(&Manifest::new(config.clone(), &layers, &annotations))?;
    let manifest = put(store, &manifest, MediaType::ImageManifest)?;
    Ok(Built { manifest, config, layers, platform })
}

impl Recipe {
    /// Refuses what the format has no place for: left out in silence, it would be missed at run time.
    fn check(&self) -> Result<()> {
        if !self.workdir.is_empty() && !self.workdir.starts_with('/') {
            bail!("--workdir {} must be an absolute path", self.workdir);
        }
        if self.format != Format::Artifact {
            return Ok(());
        }
        let given = [
            ("--entrypoint", !self.entrypoint.is_empty()),
            ("--cmd", !self.cmd.is_empty()),
            ("--env", !self.env.is_empty()),
            ("--workdir", !self.workdir.is_empty()),
            ("--user", !self.user.is_empty()),
            ("--label", !self.labels.is_empty()),
            ("--file", !self.files.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some(("--label", _)) => {
                bail!(
                    "an artifact has no labels; use --annotation, or build a container image with --format image or tar"
                )
            }
            Some(("--file", _)) => {
                bail!("an artifact holds the module and no files; use --file with --format image or --format tar")
            }
            Some((flag, _)) => bail!(
                "an artifact's config has no place for {flag}; build a container image with --format image or --format tar"
            ),
        }
    }

    fn entrypoint_or_default(&self) -> Vec<String> {
        if self.entrypoint.is_empty() { vec![format!("/{}.wasm", self.name)] } else { self.entrypoint.clone() }
    }

    /// Where the module's file must be for the entrypoint to find it.
    fn module_path(&self, entrypoint: &[String]) -> Result<String> {
        let program = entrypoint.first().map(String::as_str).unwrap_or_default();
        if program.is_empty() || program.ends_with('/') {
            bail!("--entrypoint {program:?} names no file; give the path that the module gets, such as /app.wasm");
        }
        if program.starts_with('/') {
            return Ok(program.to_owned());
        }
        Ok(format!("{}/{program}", self.workdir.trim_end_matches('/')))
    }

    fn add_files<'a>(&self, files: &mut Files<'a>) -> Result<()> {
        self.files.iter().try_for_each(|source| files.add(source))
    }
}

fn module_layer(store: &Store, bytes: &[u8], name: &str) -> Result<Descriptor> {
    let mut layer = put(store, bytes, media::WASM_LAYER.into())?;
    // The file's name for those that write layers to files, such as `oras pull`.
    layer.set_annotations(Some([(ANNOTATION_TITLE.to_owned(), format!("{name}.wasm"))].into()));
    Ok(layer)
}

fn files_layer(store: &Store, files: &Files<'_>, created: Option<Timestamp>) -> Result<Descriptor> {
    let mut writer = store.writer()?;
    files.write(&mut writer, created.unwrap_or_default())?;
    let (digest, size) = writer.finish(None)?;
    descriptor(MediaType::ImageLayer, &digest, size)
}

fn put(store: &Store, bytes: &[u8], media_type: MediaType) -> Result<Descriptor> {
    let mut writer = store.writer()?;
    writer.write_all(bytes)?;
    let (digest, size) = writer.finish(None)?;
    descriptor(media_type, &digest, size)
}

fn descriptor(media_type: MediaType, digest: &str, size: u64) -> Result<Descriptor> {
    let digest: Digest = digest.parse().with_context(|| format!("read digest {digest}"))?;
    Ok(Descriptor::new(media_type, size, digest))
}

fn json<T: Serialize>(document: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(document).context("write JSON")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Read, path::Path};

    use lighter_oci::image::{self, Image, WasmConfig};

    use super::*;

    const MODULE: &str = r#"(module (@custom "version" "1.0") (@custom "authors" "me") (func (export "_start")))"#;

    fn recipe(format: Format) -> Recipe {
        Recipe {
            format,
            name: "hello".to_owned(),
            created: None,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            workdir: String::new(),
            user: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            files: Vec::new(),
        }
    }

    fn build_text(store: &Store, text: &str, recipe: &Recipe) -> Result<Built> {
        let bytes = wat::parse_str(text).unwrap();
        build(store, &Binary::parse("test", &bytes).unwrap(), &bytes, recipe)
    }

    fn resolve(store: &Store, built: &Built) -> Image {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(image::resolve(store, &built.manifest)).unwrap()
    }

    fn blob(store: &Store, blob: &Descriptor) -> Vec<u8> {
        let mut bytes = Vec::new();
        store.open_blob(blob.digest().as_ref()).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Everything that an image can hold, a thousand ways to be in another order.
    fn full(format: Format, folder: &Path) -> Recipe {
        let pairs = |prefix: &str| (0..20).map(|n| (format!("{prefix}{n}"), format!("v{n}"))).collect();
        let mut recipe = recipe(format);
        recipe.created = Some(Timestamp::parse("1700000000").unwrap());
        recipe.annotations = pairs("annotation");
        if format != Format::Artifact {
            std::fs::write(folder.join("data"), "data").unwrap();
            recipe.entrypoint = vec!["app.wasm".to_owned(), "serve".to_owned()];
            recipe.cmd = vec!["--help".to_owned()];
            recipe.env = vec!["B=2".to_owned(), "A=1".to_owned()];
            recipe.workdir = "/srv".to_owned();
            recipe.user = "1:2".to_owned();
            recipe.labels = pairs("label");
            recipe.files = vec![format!("{}:/data", folder.join("data").display()).parse().unwrap()];
        }
        recipe
    }

    #[test]
    fn the_same_input_gives_the_same_digest() {
        for format in [Format::Artifact, Format::Image, Format::Tar] {
            let [first, second] = [0, 1].map(|_| {
                let folder = tempfile::tempdir().unwrap();
                let store = Store::at(&folder.path().join("store")).unwrap();
                build_text(&store, MODULE, &full(format, folder.path())).unwrap().manifest
            });
            assert_eq!(first, second, "{format:?}");
            let folder = tempfile::tempdir().unwrap();
            let store = Store::at(&folder.path().join("store")).unwrap();
            let mut later = full(format, folder.path());
            later.created = Some(Timestamp::parse("1700000001").unwrap());
            assert_ne!(build_text(&store, MODULE, &later).unwrap().manifest, first, "{format:?}: the date is in it");
        }
    }

    #[test]
    fn an_artifact_is_what_the_layout_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        let built = build_text(&store, MODULE, &recipe(Format::Artifact)).unwrap();
        let image = resolve(&store, &built);
        assert_eq!((image.format, image.platform.as_str()), (image::Format::Artifact, "wasip1/wasm"));
        assert_eq!(image.module.unwrap().digest(), built.layers[0].digest());
        assert_eq!(image.annotations["org.opencontainers.image.version"], "1.0");
        let config: WasmConfig = serde_json::from_slice(&blob(&store, &built.config)).unwrap();
        assert_eq!(
            config,
            WasmConfig {
                created: Some("1970-01-01T00:00:00Z".to_owned()),
                author: Some("me".to_owned()),
                architecture: "wasm".to_owned(),
                os: "wasip1".to_owned(),
                layer_digests: vec![built.layers[0].digest().to_string()],
                component: None,
            }
        );
    }

    #[test]
    fn a_components_artifact_tells_its_imports_and_exports() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        let text =
            r#"(component (import "wasi:cli/stdout@0.2.0" (instance $i)) (export "wasi:cli/run@0.2.0" (instance $i)))"#;
        let built = build_text(&store, text, &recipe(Format::Artifact)).unwrap();
        assert_eq!(built.platform, "wasip2/wasm");
        let config: WasmConfig = serde_json::from_slice(&blob(&store, &built.config)).unwrap();
        let component = config.component.unwrap();
        assert_eq!(
            (component.imports, component.exports),
            (vec!["wasi:cli/stdout@0.2.0".to_owned()], vec!["wasi:cli/run@0.2.0".to_owned()])
        );
    }

    #[test]
    fn an_image_has_its_module_as_the_last_layer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(&folder.path().join("store")).unwrap();
        let plain = resolve(&store, &build_text(&store, MODULE, &recipe(Format::Image)).unwrap());
        assert_eq!(plain.format, image::Format::Layer);
        assert_eq!(plain.process.entrypoint, ["/hello.wasm"]);
        assert!(plain.layers.is_empty());

        let built = build_text(&store, MODULE, &full(Format::Image, folder.path())).unwrap();
        let image = resolve(&store, &built);
        assert_eq!((image.layers.len(), image.platform.as_str()), (1, "wasi/wasm"));
        assert_eq!(image.module.as_ref(), built.layers.last());
        assert_eq!(image.process.entrypoint, ["app.wasm", "serve"]);
        assert_eq!(
            (image.process.cmd, image.process.env),
            (vec!["--help".to_owned()], vec!["B=2".to_owned(), "A=1".to_owned()])
        );
        assert_eq!((image.process.workdir.as_str(), image.process.user.as_str()), ("/srv", "1:2"));
        assert_eq!(image.process.labels["label7"], "v7");
        let config: serde_json::Value = serde_json::from_slice(&blob(&store, &built.config)).unwrap();
        let files: &str = built.layers[0].digest().as_ref();
        assert_eq!(config["rootfs"], serde_json::json!({"type": "layers", "diff_ids": [files]}));
    }

    #[test]
    fn a_tar_image_has_its_module_where_the_entrypoint_looks() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(&folder.path().join("store")).unwrap();
        let built = build_text(&store, MODULE, &full(Format::Tar, folder.path())).unwrap();
        assert_eq!(resolve(&store, &built).format, image::Format::Rootfs);
        let layer = blob(&store, &built.layers[0]);
        let mut archive = tar::Archive::new(layer.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["data", "srv/", "srv/app.wasm"]);
    }

    #[test]
    fn what_a_format_can_not_hold_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        type Change = fn(&mut Recipe);
        let changes: &[(Format, Change, &str)] = &[
            (Format::Artifact, |recipe| recipe.cmd.push("x".to_owned()), "no place for --cmd"),
            (Format::Artifact, |recipe| recipe.files.push("/a:/b".parse().unwrap()), "--format image or --format tar"),
            (Format::Artifact, |recipe| recipe.labels.extend([("a".to_owned(), "b".to_owned())]), "use --annotation"),
            (Format::Tar, |recipe| recipe.entrypoint.push("/app/".to_owned()), "names no file"),
            (Format::Tar, |recipe| recipe.entrypoint.push("../app.wasm".to_owned()), "without `..`"),
            (Format::Image, |recipe| recipe.workdir.push_str("srv"), "absolute path"),
        ];
        for (format, change, expected) in changes {
            let mut recipe = recipe(*format);
            change(&mut recipe);
            let error = build_text(&store, MODULE, &recipe).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
