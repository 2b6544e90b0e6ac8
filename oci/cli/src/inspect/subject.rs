//! What is looked into: a file, or an image in the store or on a registry.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use lighter_oci::image::{self, Content, Format, Image, Process, platform_name};
use oci_spec::image::Descriptor;
use serde::Serialize;

use super::{MAX_BYTES, read};
use crate::{
    output::Output,
    reference::Reference,
    registry::{Access, Registry},
    store::Store,
    transfer::{Remote, extract_module, remote},
};

/// A module and, if it is in one, its image.
#[derive(Debug)]
pub(crate) struct Subject {
    /// As messages call it.
    pub(crate) name: String,
    pub(crate) image: Option<ImageReport>,
    /// The module's bytes, or why they can't be had.
    pub(crate) module: Result<Vec<u8>>,
}

/// An image's documents.
#[derive(Debug, Serialize)]
pub(crate) struct ImageReport {
    reference: String,
    /// Where it was found: `store` or `registry`.
    source: &'static str,
    /// The root's: what the name stands for.
    digest: String,
    /// All that the root offers; one unless it is an index.
    platforms: Vec<PlatformReport>,
    /// The one that Lighter would run.
    platform: String,
    format: Format,
    manifest: String,
    config: Blob,
    layers: Vec<Blob>,
    /// Bytes of manifest, config and layers.
    size: u64,
    process: Process,
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct PlatformReport {
    /// None where the index doesn't say.
    platform: Option<String>,
    digest: String,
    size: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: String,
    digest: String,
    size: u64,
}

impl Subject {
    /// Finds what `name` means: a file that is there, or else an image.
    ///
    /// # Errors
    /// There is neither, or the image's documents are damaged.
    pub(crate) async fn find(name: &str, plain_http: bool, output: &Output) -> Result<Self> {
        if name == "-" {
            let name = "standard input".to_owned();
            let module = read(&name, io::stdin().lock(), 0);
            return Ok(Self { name, image: None, module });
        }
        let path = Path::new(name);
        if path.is_dir() {
            bail!("{name} is a folder; give a .wasm file, or load an image layout first: lighter load -i {name}");
        }
        if path.exists() {
            let file = File::open(path).with_context(|| format!("open {name}"))?;
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            return Ok(Self { name: name.to_owned(), image: None, module: read(name, file, size) });
        }
        let reference: Reference = name.parse().map_err(|error| anyhow!("{name}: no such file, and {error}"))?;
        let store = Store::open()?;
        store.keep()?;
        if let Some(root) = store.resolve(&reference)? {
            let (report, image) = ImageReport::read(&reference, "store", &store, &root).await?;
            let module = extract(&store, &root, &image).await;
            return Ok(Self { name: reference.to_string(), image: Some(report), module });
        }
        if name.ends_with(".wasm") {
            bail!("{name}: no such file, and no image of this name in the local store");
        }
        let registry = Registry::new(&reference, plain_http, Access::Pull, output)?;
        let (root, documents) = remote(&registry, &store, &reference)
            .await
            .with_context(|| format!("{reference} is not in the local store, and on its registry"))?;
        let (report, image) = ImageReport::read(&reference, "registry", &documents, &root).await?;
        let module = fetch(&documents, &store, &image, output).await;
        Ok(Self { name: reference.to_string(), image: Some(report), module })
    }
}

/// Gets an image's module by way of the store, where a later pull or run finds what was fetched. The image gets no name.
async fn fetch(documents: &Remote<'_>, store: &Store, image: &Image, output: &Output) -> Result<Vec<u8>> {
    let wanted: Vec<&Descriptor> = image.module.as_ref().map_or_else(|| image.layers.iter().collect(), |one| vec![one]);
    let is_wasm = image.platform.rsplit('/').next().is_some_and(|architecture| architecture.starts_with("wasm"));
    if image.module.is_none() && !is_wasm {
        bail!("an image for {} is not fetched to look for WebAssembly in it; `lighter pull` it first", image.platform);
    }
    let size = wanted.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size()));
    if size > MAX_BYTES {
        bail!("it has {size} bytes, too many to fetch for a look; `lighter pull` it first");
    }
    for blob in wanted {
        documents.fetch(blob, output).await?;
    }
    for document in [&image.config, &image.manifest] {
        let bytes = documents.read(document).await?.with_context(|| format!("{} is gone", document.digest()))?;
        store.put(&bytes)?;
    }
    extract(store, &image.manifest, image).await
}

/// An image's module, all of whose blobs the store has.
async fn extract(store: &Store, root: &Descriptor, image: &Image) -> Result<Vec<u8>> {
    let mut module = Bounded::with_room_for(image.module.as_ref());
    extract_module(store, root, &mut module).await?;
    Ok(module.0)
}

impl ImageReport {
    async fn read<C: Content<Error = anyhow::Error>>(
        reference: &Reference,
        source: &'static str,
        content: &C,
        root: &Descriptor,
    ) -> Result<(Self, Image)> {
        let platforms = image::manifests(content, root).await.with_context(|| reference.to_string())?;
        let image = image::resolve(content, root).await.with_context(|| reference.to_string())?;
        let blobs = || std::iter::once(&image.config).chain(&image.module).chain(&image.layers);
        let report = Self {
            reference: reference.to_string(),
            source,
            digest: root.digest().to_string(),
            platforms: platforms
                .into_iter()
                .map(|(manifest, platform)| PlatformReport {
                    platform: platform.as_ref().map(platform_name),
                    digest: manifest.digest().to_string(),
                    size: manifest.size(),
                })
                .collect(),
            platform: image.platform.clone(),
            format: image.format,
            manifest: image.manifest.digest().to_string(),
            config: Blob::from(&image.config),
            layers: image.layers.iter().chain(&image.module).map(Blob::from).collect(),
            size: blobs().fold(image.manifest.size(), |sum, blob| sum.saturating_add(blob.size())),
            process: image.process.clone(),
            annotations: image.annotations.clone(),
        };
        Ok((report, image))
    }

    /// Names and values for people, in the order in which they are asked for.
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            ("digest".to_owned(), self.digest.clone()),
            ("format".to_owned(), format_name(self.format).to_owned()),
            ("platform".to_owned(), self.platform.clone()),
            ("size".to_owned(), indicatif::HumanBytes(self.size).to_string()),
            ("found in".to_owned(), self.source.to_owned()),
        ];
        if self.manifest != self.digest {
            for platform in &self.platforms {
                let name = platform.platform.as_deref().unwrap_or("any platform");
                rows.push(("offers".to_owned(), format!("{name} {}", platform.digest)));
            }
            rows.push(("manifest".to_owned(), self.manifest.clone()));
        }
        rows.push(("config".to_owned(), format!("{} {}", self.config.digest, self.config.media_type)));
        for layer in &self.layers {
            let size = indicatif::HumanBytes(layer.size);
            rows.push(("layer".to_owned(), format!("{} {} {size}", layer.digest, layer.media_type)));
        }
        let process = &self.process;
        let mut list = |name: &str, values: &[String]| {
            if !values.is_empty() {
                rows.push((name.to_owned(), values.join(" ")));
            }
        };
        list("entrypoint", &process.entrypoint);
        list("cmd", &process.cmd);
        list("env", &process.env);
        for (name, value) in [("workdir", &process.workdir), ("user", &process.user)] {
            if !value.is_empty() {
                rows.push((name.to_owned(), value.clone()));
            }
        }
        let pairs = |kind: &'static str, pairs: &std::collections::BTreeMap<String, String>| {
            pairs.iter().map(move |(name, value)| (kind.to_owned(), format!("{name}={value}"))).collect::<Vec<_>>()
        };
        rows.extend(pairs("label", &process.labels));
        rows.extend(pairs("annotation", &self.annotations));
        rows
    }
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Rootfs => "container image, module as a file",
        Format::Artifact => "artifact",
        Format::Layer => "container image, module as a layer",
    }
}

impl From<&Descriptor> for Blob {
    fn from(blob: &Descriptor) -> Self {
        Self { media_type: blob.media_type().to_string(), digest: blob.digest().to_string(), size: blob.size() }
    }
}

/// Bytes in memory, up to [`MAX_BYTES`]: what comes out of an archive may be any size.
struct Bounded(Vec<u8>);

impl Bounded {
    fn with_room_for(layer: Option<&Descriptor>) -> Self {
        let size = layer.map_or(0, |layer| layer.size().min(MAX_BYTES));
        Self(Vec::with_capacity(usize::try_from(size).unwrap_or(0)))
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes, which no engine loads")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
