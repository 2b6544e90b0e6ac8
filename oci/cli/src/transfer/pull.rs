//! From a registry to the store.

use std::{iter, time::Duration};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use lighter_oci::image::{Content, Document, MAX_DOCUMENT, media};
use oci_spec::image::Descriptor;
use serde::Serialize;

use super::{AT_ONCE, Platforms};
use crate::{
    output::Output,
    reference::Reference,
    registry::{Access, Registry},
    store::{Partial, Store},
};

/// How often to look whether another process has the blob that it downloads.
const LOOK: Duration = Duration::from_millis(200);

/// What was pulled.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    /// The whole name.
    pub(crate) reference: String,
    /// The root's, as the registry has it.
    pub(crate) digest: String,
    /// Bytes of all blobs.
    pub(crate) size: u64,
    /// Configs and layers.
    pub(crate) blobs: Vec<PulledBlob>,
    /// The root: an index or a manifest.
    #[serde(skip)]
    pub(crate) root: Descriptor,
}

/// A config or layer.
#[derive(Debug, Serialize)]
pub(crate) struct PulledBlob {
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// `pulled`, or `exists` if the store had it.
    pub(crate) action: &'static str,
}

/// Pulls an image, of an index the chosen platforms, and names it in the store when all of it is there.
///
/// A manifest comes into the store after its blobs: what the store has of an index, it has whole.
pub(crate) async fn pull(
    store: &Store,
    reference: &Reference,
    platforms: &Platforms,
    plain_http: bool,
    output: &Output,
) -> Result<Pulled> {
    store.keep()?;
    let registry = Registry::new(reference, plain_http, Access::Pull, output)?;
    let (root, bytes) = registry.manifest(reference.tag_or_digest()).await?;
    Document::parse(&root, &bytes).with_context(|| format!("{reference}"))?;
    let remote = Remote { registry: &registry, store };
    let is_index = media::is_index(root.media_type());
    if is_index {
        store.put(&bytes)?;
    }
    let mut blobs = Vec::new();
    for manifest in platforms.choose(&remote, &root).await.with_context(|| format!("{reference}"))? {
        let bytes = if is_index { remote.document(&manifest).await? } else { bytes.clone() };
        // What is in an index besides manifests is a blob like others.
        if is_index && !media::is_manifest(manifest.media_type()) {
            blobs.push(pull_blob(&registry, store, &manifest, output).await?);
            continue;
        }
        blobs.extend(pull_blobs(&registry, store, &manifest, &bytes, output).await?);
        store.put(&bytes)?;
    }
    store.tag(reference, without_annotations(&root))?;
    store.remember_source(&root, reference)?;
    let size = store.graph(&root)?.size();
    Ok(Pulled { reference: reference.to_string(), digest: root.digest().to_string(), size, blobs, root })
}

/// The documents of an image on a registry, without pulling it: its root, and where to read the rest.
pub(crate) async fn remote<'a>(
    registry: &'a Registry<'a>,
    store: &'a Store,
    reference: &Reference,
) -> Result<(Descriptor, Remote<'a>)> {
    let (root, _) = registry.manifest(reference.tag_or_digest()).await?;
    Ok((root, Remote { registry, store }))
}

/// A registry's documents; those that the store has are not asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote<'a> {
    registry: &'a Registry<'a>,
    store: &'a Store,
}

impl Remote<'_> {
    /// Pulls a config or layer into the store, if it isn't there.
    pub(crate) async fn fetch(&self, blob: &Descriptor, output: &Output) -> Result<()> {
        pull_blob(self.registry, self.store, blob, output).await.map(|_| ())
    }

    /// The blob's bytes, verified. An index is kept: it says nothing of what is here.
    async fn document(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size() > MAX_DOCUMENT {
            anyhow::bail!(
                "{}: {} bytes are too many for a document; {MAX_DOCUMENT} are allowed",
                blob.digest(),
                blob.size()
            );
        }
        if self.store.has_sound(blob)? {
            return self.store.document(blob);
        }
        let is_index = media::is_index(blob.media_type());
        if !is_index && !media::is_manifest(blob.media_type()) {
            return Ok(self.registry.small_blob(blob).await?);
        }
        let (_, bytes) = self.registry.manifest(blob.digest().as_ref()).await?;
        lighter_oci::image::verify(blob, &bytes)?;
        if is_index {
            self.store.put(&bytes)?;
        }
        Ok(bytes)
    }
}

impl Content for Remote<'_> {
    type Error = anyhow::Error;

    async fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>> {
        self.document(blob).await.map(Some)
    }
}

/// Pulls what a manifest names.
async fn pull_blobs(
    registry: &Registry<'_>,
    store: &Store,
    manifest: &Descriptor,
    bytes: &[u8],
    output: &Output,
) -> Result<Vec<PulledBlob>> {
    let Document::Manifest(parsed) = Document::parse(manifest, bytes)? else {
        anyhow::bail!("{} is not a manifest", manifest.digest());
    };
    let mut parts: Vec<&Descriptor> = Vec::new();
    for part in iter::once(parsed.config()).chain(parsed.layers()) {
        if parts.iter().all(|known| known.digest() != part.digest()) {
            parts.push(part);
        }
    }
    stream::iter(parts).map(|blob| pull_blob(registry, store, blob, output)).buffered(AT_ONCE).try_collect().await
}

async fn pull_blob(registry: &Registry<'_>, store: &Store, blob: &Descriptor, output: &Output) -> Result<PulledBlob> {
    let digest = blob.digest().to_string();
    lighter_oci::image::sha256_of(blob.digest())?;
    let pulled = |action| PulledBlob { digest: digest.clone(), size: blob.size(), action };
    let transfer = output.transfer(&digest, blob.size());
    let mut resumed = true;
    loop {
        let Some(mut partial) = partial(store, blob, output).await? else {
            transfer.done("exists");
            return Ok(pulled("exists"));
        };
        resumed &= partial.len() > 0;
        transfer.at(partial.len());
        registry.download(blob, &mut partial, |bytes| transfer.at(bytes)).await?;
        match partial.finish() {
            Ok(()) => break,
            // Whatever was left by the earlier try was no beginning of this blob: once more, from the start.
            Err(_) if resumed => resumed = false,
            Err(error) => return Err(error),
        }
    }
    transfer.done("pulled");
    Ok(pulled("pulled"))
}

/// The download, once no other process does it; `None` if the store has the blob. One that was damaged there is replaced.
async fn partial(store: &Store, blob: &Descriptor, output: &Output) -> Result<Option<Partial>> {
    let mut said = false;
    loop {
        if store.has_sound(blob)? {
            return Ok(None);
        }
        if let Some(partial) = store.partial(blob)? {
            // Another process may have finished between the two questions.
            return Ok(if store.has_sound(blob)? { None } else { Some(partial) });
        }
        if !said {
            output.note(&format!("waiting for another lighter that pulls {}", blob.digest()));
            said = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a manifest's descriptor says about its place in an index has no meaning under a name.
fn without_annotations(root: &Descriptor) -> Descriptor {
    Descriptor::new(root.media_type().clone(), root.size(), root.digest().clone())
}
