//! From a descriptor, through indexes, to an image.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType, Platform};

use super::{Content, MAX_DOCUMENT, Process, WasmConfig, config::ImageConfig, media, platform, verify};
use crate::Error;

/// Indexes within indexes.
const MAX_DEPTH: usize = 4;
/// Manifests behind one name.
const MAX_MANIFESTS: usize = 256;

/// What a root descriptor can lead to.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub enum Document {
    /// A list of manifests, each for a platform.
    Index(ImageIndex),
    /// One image.
    Manifest(ImageManifest),
}

impl Document {
    /// Understands a blob as what its descriptor says it is, after comparing it with the digest.
    ///
    /// # Errors
    /// It is another blob, of a media type that isn't known, or nonsense.
    pub fn parse(blob: &Descriptor, bytes: &[u8]) -> Result<Self, Error> {
        verify(blob, bytes)?;
        let nonsense = |what, source| Error::Document { what, digest: blob.digest().to_string(), source };
        // A document that could be read as either would be one image to a scanner and another one here (CVE-2021-41190).
        let fields: Fields = serde_json::from_slice(bytes).map_err(|source| nonsense("manifest", source))?;
        let ambiguous = |what| Error::Ambiguous { what, digest: blob.digest().to_string() };
        if fields.media_type.is_some_and(|own| own != *blob.media_type()) {
            return Err(ambiguous("calls itself by another media type than the descriptor that names it"));
        }
        if media::is_index(blob.media_type()) {
            if fields.layers.is_some() || fields.config.is_some() {
                return Err(ambiguous("is an index with the fields of a manifest"));
            }
            serde_json::from_slice(bytes).map(Self::Index).map_err(|source| nonsense("index", source))
        } else if media::is_manifest(blob.media_type()) {
            if fields.manifests.is_some() {
                return Err(ambiguous("is a manifest with the fields of an index"));
            }
            serde_json::from_slice(bytes).map(Self::Manifest).map_err(|source| nonsense("manifest", source))
        } else {
            Err(Error::MediaType {
                what: "manifest",
                digest: blob.digest().to_string(),
                media_type: blob.media_type().to_string(),
            })
        }
    }
}

/// The fields that tell one kind of document from the other.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    media_type: Option<MediaType>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// How an image holds its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// In its root filesystem: the entrypoint's file.
    Rootfs,
    /// As the one layer of an artifact that has no container config.
    Artifact,
    /// As a layer of its own, beside a container config and perhaps layers of files.
    Layer,
}

/// An image that Lighter understands. What its blobs hold is not looked at yet.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its config.
    pub config: Descriptor,
    /// Where its module is.
    pub format: Format,
    /// As `os/architecture`.
    pub platform: String,
    /// The layer that is the module; none in a root filesystem.
    pub module: Option<Descriptor>,
    /// Layers of files, the lowest first.
    pub layers: Vec<Descriptor>,
    /// How its process starts.
    pub process: Process,
    /// The manifest's.
    pub annotations: BTreeMap<String, String>,
}

impl Image {
    /// Understands a manifest and its config. `bytes` are the config's, and are compared with its digest.
    ///
    /// # Errors
    /// A media type that isn't known, several modules or none, a config that is nonsense.
    pub fn new(blob: &Descriptor, manifest: &ImageManifest, bytes: &[u8]) -> Result<Self, Error> {
        let (module, layers) = sort_layers(blob, manifest)?;
        let config = manifest.config();
        verify(config, bytes)?;
        let nonsense = |source| Error::Document { what: "config", digest: config.digest().to_string(), source };
        let (format, os, architecture, process) = if media::is_artifact_config(config.media_type()) {
            if module.is_none() {
                return Err(Error::NoModule { manifest: blob.digest().to_string() });
            }
            if let Some(files) = layers.first() {
                return Err(Error::MediaType {
                    what: "layer of an artifact",
                    digest: files.digest().to_string(),
                    media_type: files.media_type().to_string(),
                });
            }
            let wasm: WasmConfig = serde_json::from_slice(bytes).map_err(nonsense)?;
            (Format::Artifact, wasm.os, wasm.architecture, Process::default())
        } else if media::is_image_config(config.media_type()) {
            let image: ImageConfig = serde_json::from_slice(bytes).map_err(nonsense)?;
            let format = if module.is_some() { Format::Layer } else { Format::Rootfs };
            (format, image.os, image.architecture, image.config)
        } else {
            return Err(Error::MediaType {
                what: "config",
                digest: config.digest().to_string(),
                media_type: config.media_type().to_string(),
            });
        };
        let named = |name: String| if name.is_empty() { "unknown".to_owned() } else { name };
        Ok(Self {
            manifest: blob.clone(),
            config: config.clone(),
            format,
            platform: format!("{}/{}", named(os), named(architecture)),
            module,
            layers,
            process,
            annotations: manifest.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }
}

/// The module, if a layer is one, and the layers of files.
fn sort_layers(blob: &Descriptor, manifest: &ImageManifest) -> Result<(Option<Descriptor>, Vec<Descriptor>), Error> {
    let mut module: Option<Descriptor> = None;
    let mut files = Vec::new();
    for layer in manifest.layers() {
        if media::is_tar_layer(layer.media_type()) {
            files.push(layer.clone());
        } else if !media::is_wasm_layer(layer.media_type()) {
            return Err(Error::MediaType {
                what: "layer",
                digest: layer.digest().to_string(),
                media_type: layer.media_type().to_string(),
            });
        } else if let Some(first) = &module {
            return Err(Error::SeveralModules {
                manifest: blob.digest().to_string(),
                first: first.digest().to_string(),
                second: layer.digest().to_string(),
            });
        } else {
            module = Some(layer.clone());
        }
    }
    Ok((module, files))
}

/// Every manifest behind `root`, with the platform that its index says it is for, in the index's order. A nested index
/// that isn't here is left out, as are the platforms that nobody pulled.
///
/// # Errors
/// What `content` fails with; [`Error::TooDeep`] and [`Error::TooMany`] for what no builder makes.
pub async fn manifests<C: Content>(
    content: &C,
    root: &Descriptor,
) -> Result<Vec<(Descriptor, Option<Platform>)>, C::Error> {
    let mut found = Vec::new();
    let mut entries = 0;
    // Indexes still to be read, and how deep each is.
    let mut open = vec![(root.clone(), None, 0)];
    while let Some((blob, platform, depth)) = open.pop() {
        if !media::is_index(blob.media_type()) {
            found.push((blob, platform));
            continue;
        }
        if depth == MAX_DEPTH {
            return Err(Error::TooDeep { digest: blob.digest().to_string(), most: MAX_DEPTH }.into());
        }
        let Some(bytes) = read(content, &blob).await? else {
            if depth == 0 {
                return Err(Error::MissingBlob { what: "index", digest: blob.digest().to_string() }.into());
            }
            continue;
        };
        let Document::Index(index) = Document::parse(&blob, &bytes)? else {
            return Err(Error::Ambiguous { what: "is not an index", digest: blob.digest().to_string() }.into());
        };
        // Of all indexes together: each entry may be an index that costs a read.
        entries += index.manifests().len();
        if entries > MAX_MANIFESTS {
            return Err(Error::TooMany { digest: blob.digest().to_string(), most: MAX_MANIFESTS }.into());
        }
        for entry in index.manifests().iter().rev() {
            // What an entry doesn't say, the index around it did.
            let platform = entry.platform().clone().or_else(|| platform.clone());
            open.push((entry.clone(), platform, depth + 1));
        }
    }
    Ok(found)
}

/// The image that Lighter runs of those behind `root`: for WebAssembly before the host's platform, of the manifests
/// that are here. Manifest and config are verified.
///
/// # Errors
/// What `content` fails with, no manifest for any of the platforms, and whatever is wrong with a document.
pub async fn resolve<C: Content>(content: &C, root: &Descriptor) -> Result<Image, C::Error> {
    let all = manifests(content, root).await?;
    let mut ranked: Vec<_> = all
        .iter()
        .filter_map(|(blob, platform)| Some((platform::rank(platform.as_ref())?, blob, platform.as_ref())))
        .collect();
    // Stable: of two for one platform the first.
    ranked.sort_by_key(|(rank, ..)| *rank);
    let mut missing = None;
    for (_, blob, platform) in ranked {
        let Some(bytes) = read(content, blob).await? else {
            missing.get_or_insert(blob);
            continue;
        };
        let Document::Manifest(manifest) = Document::parse(blob, &bytes)? else {
            return Err(Error::Ambiguous { what: "is not a manifest", digest: blob.digest().to_string() }.into());
        };
        let Some(config) = read(content, manifest.config()).await? else {
            let digest = manifest.config().digest().to_string();
            return Err(Error::MissingBlob { what: "config", digest }.into());
        };
        let mut image = Image::new(blob, &manifest, &config)?;
        if let Some(platform) = platform {
            image.platform = platform::name(platform);
        }
        return Ok(image);
    }
    Err(match missing {
        Some(blob) => Error::MissingBlob { what: "manifest", digest: blob.digest().to_string() },
        None => Error::NoPlatform {
            digest: root.digest().to_string(),
            platforms: all.iter().filter_map(|(_, p)| p.as_ref()).map(platform::name).collect::<Vec<_>>().join(", "),
        },
    }
    .into())
}

async fn read<C: Content>(content: &C, blob: &Descriptor) -> Result<Option<Vec<u8>>, C::Error> {
    if blob.size() > MAX_DOCUMENT {
        return Err(Error::TooLarge { digest: blob.digest().to_string(), size: blob.size(), most: MAX_DOCUMENT }.into());
    }
    content.read(blob).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        cell::RefCell,
        collections::HashMap,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use serde_json::{Value, json};
    use sha2::Digest as _;

    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[derive(Default)]
    struct Blobs(RefCell<HashMap<String, Vec<u8>>>);

    impl Content for Blobs {
        type Error = Error;
        async fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, Error> {
            Ok(self.0.borrow().get(&blob.digest().to_string()).cloned())
        }
    }

    impl Blobs {
        fn put(&self, media_type: &str, value: &Value) -> Value {
            self.put_bytes(media_type, serde_json::to_vec(value).unwrap())
        }

        fn put_bytes(&self, media_type: &str, bytes: Vec<u8>) -> Value {
            let digest = format!("sha256:{}", crate::module::hex(&sha2::Sha256::digest(&bytes)));
            let descriptor = json!({"mediaType": media_type, "size": bytes.len(), "digest": digest});
            self.0.borrow_mut().insert(digest, bytes);
            descriptor
        }

        fn image(&self, config_type: &str, config: &Value, layers: &[&str]) -> Value {
            let layers: Vec<Value> = layers.iter().map(|l| self.put_bytes(l, l.as_bytes().to_vec())).collect();
            let config = self.put(config_type, config);
            self.put(MANIFEST, &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}))
        }

        fn index(&self, entries: &[(&Value, Option<&str>)]) -> Value {
            let entries: Vec<Value> = entries
                .iter()
                .map(|(descriptor, platform)| {
                    let mut entry = (*descriptor).clone();
                    if let Some((os, architecture)) = platform.and_then(|p| p.split_once('/')) {
                        entry["platform"] = json!({"os": os, "architecture": architecture});
                    }
                    entry
                })
                .collect();
            self.put(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
        }

        fn resolve(&self, root: &Value) -> Result<Image, Error> {
            let root: Descriptor = serde_json::from_value(root.clone()).unwrap();
            let mut resolving = pin!(resolve(self, &root));
            match resolving.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(image) => image,
                Poll::Pending => panic!("nothing to wait for"),
            }
        }
    }

    fn image_config() -> Value {
        json!({"os": "wasi", "architecture": "wasm", "rootfs": {"type": "layers", "diff_ids": []},
               "config": {"Entrypoint": ["/a.wasm"]}})
    }

    #[test]
    fn every_format_is_told_by_its_media_types() {
        let blobs = Blobs::default();
        let wasm = json!({"os": "wasip2", "architecture": "wasm", "layerDigests": []});
        let table = [
            (blobs.image(CONFIG, &image_config(), &[TAR, TAR]), Format::Rootfs, "wasi/wasm", None, 2),
            (
                blobs.image(media::WASM_CONFIG, &wasm, &[media::WASM_LAYER]),
                Format::Artifact,
                "wasip2/wasm",
                Some(media::WASM_LAYER),
                0,
            ),
            (
                blobs.image(media::EMPTY_CONFIG, &json!({}), &[media::WASM_LAYER]),
                Format::Artifact,
                "unknown/unknown",
                Some(media::WASM_LAYER),
                0,
            ),
            (
                blobs.image(CONFIG, &image_config(), &[TAR, media::WASM_LAYERS[1]]),
                Format::Layer,
                "wasi/wasm",
                Some(media::WASM_LAYERS[1]),
                1,
            ),
            (
                blobs.image(CONFIG, &image_config(), &[media::WASM_LAYERS[2]]),
                Format::Layer,
                "wasi/wasm",
                Some(media::WASM_LAYERS[2]),
                0,
            ),
        ];
        for (root, format, platform, module, layers) in table {
            let image = blobs.resolve(&root).unwrap();
            assert_eq!(image.format, format);
            assert_eq!(image.platform, platform);
            assert_eq!(image.module.map(|m| m.media_type().to_string()).as_deref(), module);
            assert_eq!(image.layers.len(), layers);
            let entrypoint = if format == Format::Artifact { vec![] } else { vec!["/a.wasm".to_owned()] };
            assert_eq!(image.process.entrypoint, entrypoint);
        }
    }

    #[test]
    fn an_index_gives_wasm_before_the_host_and_what_is_here_before_what_is_not() {
        let blobs = Blobs::default();
        let image = |os: &str| {
            blobs.image(
                CONFIG,
                &json!({"os": os, "architecture": "wasm", "config": {"Cmd": [os]}}),
                &[media::WASM_LAYER],
            )
        };
        let (wasi, p1, p2, linux) = (image("wasi"), image("wasip1"), image("wasip2"), image("linux"));
        let host =
            blobs.image(CONFIG, &json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": ["host"]}}), &[TAR]);
        let host_name = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
        let absent = json!({"mediaType": MANIFEST, "size": 7, "digest": format!("sha256:{}", "a".repeat(64))});
        let nested = blobs.index(&[(&p1, Some("wasip1/wasm")), (&p2, Some("wasip2/wasm"))]);
        let nothing = blobs.index(&[]);
        let cmd = |root: &Value| blobs.resolve(root).map(|image| image.process.cmd.join(" "));
        let table = [
            (blobs.index(&[(&host, Some(host_name)), (&wasi, Some("wasi/wasm")), (&p2, Some("wasip2/wasm"))]), "wasi"),
            (blobs.index(&[(&host, Some(host_name)), (&nested, None)]), "wasip2"),
            (blobs.index(&[(&nested, Some("wasip1/wasm")), (&linux, Some("linux/wasm"))]), "wasip2"),
            (blobs.index(&[(&nothing, None), (&linux, Some("linux/wasm"))]), "linux"),
            (blobs.index(&[(&absent, Some("wasi/wasm")), (&linux, Some("linux/wasm"))]), "linux"),
            (blobs.index(&[(&absent, Some("windows/amd64")), (&host, Some(host_name))]), "host"),
            (blobs.index(&[(&p1, Some("unknown/unknown")), (&p2, None)]), "wasip2"),
        ];
        for (root, expected) in table {
            assert_eq!(cmd(&root).unwrap(), expected);
        }
        let error = cmd(&blobs.index(&[(&absent, Some("wasi/wasm"))])).unwrap_err().to_string();
        assert!(error.contains(&"a".repeat(64)), "{error}");
        let error =
            cmd(&blobs.index(&[(&wasi, Some("windows/amd64")), (&p1, Some("wasi/arm"))])).unwrap_err().to_string();
        assert!(error.contains("windows/amd64, wasi/arm"), "{error}");
    }

    #[test]
    fn nonsense_is_an_error_that_names_it() {
        let blobs = Blobs::default();
        let good = || blobs.image(CONFIG, &image_config(), &[media::WASM_LAYER]);
        let descriptor_of = |bytes: &[u8]| blobs.put_bytes(MANIFEST, bytes.to_vec());
        let mut larger = good();
        larger["size"] = json!(MAX_DOCUMENT + 1);
        let mut longer = good();
        longer["size"] = json!(longer["size"].as_u64().unwrap() + 1);
        let other = blobs.image(CONFIG, &json!({"os": "wasi"}), &[media::WASM_LAYER]);
        blobs.0.borrow_mut().get_mut(other["digest"].as_str().unwrap()).unwrap()[3] ^= 1;
        let bad_digest = other.clone();
        let mut sha512 = good();
        sha512["digest"] = json!(format!("sha512:{}", "b".repeat(128)));
        let config_is_text = {
            let config = blobs.put_bytes(CONFIG, b"not json".to_vec());
            blobs.put(MANIFEST, &json!({"schemaVersion": 2, "config": config, "layers": []}))
        };
        let mut deep = blobs.index(&[]);
        for _ in 0..MAX_DEPTH {
            deep = blobs.index(&[(&deep, None)]);
        }
        let entry = json!({"mediaType": MANIFEST, "size": 7, "digest": format!("sha256:{}", "a".repeat(64))});
        let hollow: Vec<Value> =
            (0..20).map(|n| blobs.put(INDEX, &json!({"manifests": [], "schemaVersion": 2, "n": n}))).collect();
        let hollow: Vec<(&Value, Option<&str>)> = hollow.iter().map(|index| (index, None)).collect();
        let level: Vec<Value> = (0..20).map(|_| blobs.index(&hollow)).collect();
        let wide = blobs.index(&level.iter().map(|index| (index, None)).collect::<Vec<_>>());
        let many = blobs.index(&vec![(&entry, Some("wasi/wasm")); MAX_MANIFESTS + 1]);
        let both = blobs.put(MANIFEST, &json!({"schemaVersion": 2, "manifests": [], "config": good(), "layers": []}));
        let liar = blobs.put(MANIFEST, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}));
        let table = [
            (blobs.image(CONFIG, &image_config(), &[media::WASM_LAYER, media::WASM_LAYERS[1]]), "several"),
            (blobs.image(CONFIG, &image_config(), &["text/html"]), "text/html"),
            (blobs.image("text/css", &json!({}), &[media::WASM_LAYER]), "text/css"),
            (blobs.image(media::WASM_CONFIG, &json!({}), &[]), "no module"),
            (blobs.image(media::WASM_CONFIG, &json!({}), &[TAR, media::WASM_LAYER]), TAR),
            (blobs.put("application/x", &json!({})), "application/x"),
            (larger, "bytes"),
            (longer, "bytes"),
            (descriptor_of(b"{"), "manifest"),
            (descriptor_of(b"[]"), "manifest"),
            (config_is_text, "config"),
            (sha512, "sha512"),
            (deep, "nested"),
            (many, "256"),
            (wide, "256"),
            (both, "fields of an index"),
            (liar, "another media type"),
            (bad_digest, "instead of"),
        ];
        for (root, expected) in table {
            let error = blobs.resolve(&root).unwrap_err().to_string();
            assert!(error.contains(expected), "expected {expected:?} in {error:?}");
        }
    }
}
