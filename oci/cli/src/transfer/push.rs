//! From the store to a registry.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use lighter_oci::image::{Document, media};
use oci_spec::image::Descriptor;
use serde::Serialize;

use super::{AT_ONCE, Platforms};
use crate::{
    output::Output,
    reference::Reference,
    registry::{Access, Registry},
    store::{Graph, Store},
};

/// Repositories that a token is asked for, to mount from: enough for any image, few enough for any server.
const MAX_SOURCES: usize = 8;

/// What was pushed.
#[derive(Debug, Serialize)]
pub(crate) struct Pushed {
    /// The whole name.
    pub(crate) reference: String,
    /// The root's.
    pub(crate) digest: String,
    /// Bytes of all blobs.
    pub(crate) size: u64,
    /// Configs and layers.
    pub(crate) blobs: Vec<PushedBlob>,
}

/// A config or layer.
#[derive(Debug, Serialize)]
pub(crate) struct PushedBlob {
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// `uploaded`, `mounted`, or `exists` if the repository had it.
    pub(crate) action: &'static str,
}

/// Pushes the image of this name, all platforms of an index unless one is chosen.
///
/// Blobs first, then the manifests, then what names those, the tag last.
pub(crate) async fn push(
    store: &Store,
    reference: &Reference,
    platforms: &Platforms,
    plain_http: bool,
    output: &Output,
) -> Result<Pushed> {
    store.keep()?;
    let Some(named) = store.resolve(reference)? else {
        bail!("no image {reference} in the store; `lighter ls` lists what there is, `lighter tag` gives it this name");
    };
    let root = chosen(store, &named, platforms).await.with_context(|| format!("{reference}"))?;
    let graph = whole(store, &root, reference)?;
    if reference.digest().is_some_and(|digest| digest != root.digest().as_ref()) {
        bail!("{reference} can't be the name of {}; push it by a tag", root.digest());
    }

    let sources = store.sources(reference.registry(), reference.repository())?;
    let wanted: BTreeSet<&String> =
        graph.blobs.iter().filter_map(|blob| sources.get(blob.digest().as_ref())).flatten().collect();
    let wanted: Vec<String> = wanted.into_iter().take(MAX_SOURCES).cloned().collect();
    let registry = Registry::new(reference, plain_http, Access::Push(&wanted), output)?;
    registry.greet().await?;
    let blobs = stream::iter(&graph.blobs)
        .map(|blob| push_blob(&registry, store, blob, &sources, output))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    for document in &graph.documents {
        let name =
            if document.digest() == root.digest() { reference.tag_or_digest() } else { document.digest().as_ref() };
        let bytes = store.document(document)?;
        if let Err(error) = registry.put_manifest(name, document.media_type(), &bytes).await {
            return Err(match cure(document, &bytes).filter(|_| error.is_about_the_manifest()) {
                Some(cure) => anyhow!("{error}; {cure}"),
                None => error.into(),
            });
        }
    }
    store.remember_source(&named, reference)?;
    Ok(Pushed { reference: reference.to_string(), digest: root.digest().to_string(), size: graph.size(), blobs })
}

/// The root, or the manifest of the platform that was asked for.
pub(super) async fn chosen(store: &Store, root: &Descriptor, platforms: &Platforms) -> Result<Descriptor> {
    match platforms {
        Platforms::All | Platforms::Best => Ok(root.clone()),
        Platforms::Named(_) => {
            let chosen = platforms.choose(store, root).await?;
            chosen.into_iter().next().context("an index without manifests")
        }
    }
}

/// Everything of the image, which must be here.
pub(super) fn whole(store: &Store, root: &Descriptor, reference: &Reference) -> Result<Graph> {
    let graph = store.graph(root).with_context(|| format!("{reference}"))?;
    graph.require_whole(&reference.to_string())?;
    require_blobs(store, &graph, reference)?;
    Ok(graph)
}

/// # Errors
/// A config or layer of the manifests that are here isn't.
pub(super) fn require_blobs(store: &Store, graph: &Graph, reference: &Reference) -> Result<()> {
    for blob in &graph.blobs {
        ensure!(
            store.has(blob)?,
            "{reference}: blob {} is missing; pull, load or build the image again",
            blob.digest()
        );
    }
    Ok(())
}

async fn push_blob(
    registry: &Registry<'_>,
    store: &Store,
    blob: &Descriptor,
    sources: &HashMap<String, BTreeSet<String>>,
    output: &Output,
) -> Result<PushedBlob> {
    let digest = blob.digest().to_string();
    let transfer = output.transfer(&digest, blob.size());
    let action = if registry.has_blob(blob).await? {
        "exists"
    } else if mounted(registry, blob, sources.get(&digest)).await? {
        "mounted"
    } else {
        let file = store.open_blob(&digest)?.with_context(|| format!("blob {digest} is gone from the store"))?;
        registry.upload(blob, file, |bytes| transfer.at(bytes)).await?;
        "uploaded"
    };
    transfer.done(action);
    Ok(PushedBlob { digest, size: blob.size(), action })
}

async fn mounted(registry: &Registry<'_>, blob: &Descriptor, from: Option<&BTreeSet<String>>) -> Result<bool> {
    for repository in from.into_iter().flatten().take(MAX_SOURCES) {
        if registry.mount(blob, repository).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What to do about a registry that takes no manifests of artifacts.
fn cure(document: &Descriptor, bytes: &[u8]) -> Option<&'static str> {
    let Ok(Document::Manifest(manifest)) = Document::parse(document, bytes) else { return None };
    let is_image = media::is_image_config(manifest.config().media_type());
    if is_image && manifest.layers().iter().all(|layer| media::is_tar_layer(layer.media_type())) {
        return None;
    }
    Some(if is_image {
        "it may not take layers that are WebAssembly: `lighter build --format tar` makes an image of ordinary layers"
    } else {
        "it may not take WebAssembly artifacts: `lighter build --format image` makes an image with an ordinary config"
    })
}
