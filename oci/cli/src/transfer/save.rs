//! From the store to an archive that `ctr images import`, `docker load`, skopeo and `lighter load` take.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use anyhow::{Context, Result, bail, ensure};
use lighter_oci::image::{self, Document, Format};
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, MediaType};
use serde::Serialize;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::{
    CONTAINERD_NAME, Platforms,
    push::{chosen, whole},
};
use crate::{
    reference::Reference,
    store::{BLOBS, Hashed, INDEX_FILE, LAYOUT, LAYOUT_FILE, Store},
};

/// What `docker load` wants beside the layout where it doesn't use containerd's store.
const DOCKER_FILE: &str = "manifest.json";

/// What was written.
#[derive(Debug, Serialize)]
pub(crate) struct Saved {
    /// The whole name.
    pub(crate) reference: String,
    /// Its root's digest.
    pub(crate) digest: String,
}

/// Writes the images as one OCI image layout in a tar archive. The same images give the same bytes.
pub(crate) async fn save(
    store: &Store,
    references: &[Reference],
    platforms: &Platforms,
    writer: impl Write,
) -> Result<Vec<Saved>> {
    store.keep()?;
    let (mut roots, mut docker, mut saved) = (Vec::new(), Vec::new(), Vec::new());
    // By digest, so in the archive's order.
    let mut blobs: BTreeMap<String, Descriptor> = BTreeMap::new();
    for reference in references {
        let Some(named) = store.resolve(reference)? else {
            bail!("no image {reference} in the store; `lighter ls` lists what there is");
        };
        let root = chosen(store, &named, platforms).await.with_context(|| format!("{reference}"))?;
        let graph = whole(store, &root, reference)?;
        let all = graph.documents.into_iter().chain(graph.blobs);
        blobs.extend(all.map(|blob| (blob.digest().to_string(), blob)));
        docker.extend(docker_entry(store, &root, reference).await);
        saved.push(Saved { reference: reference.to_string(), digest: root.digest().to_string() });
        roots.push(named_root(&root, reference));
    }
    let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": roots});

    let mut archive = tar::Builder::new(writer);
    // In the order of their names.
    folder(&mut archive, "blobs/")?;
    folder(&mut archive, "blobs/sha256/")?;
    for (digest, blob) in &blobs {
        let file = store.open_blob(digest)?.with_context(|| format!("blob {digest} is gone from the store"))?;
        let mut reader = Hashed::new(file.take(blob.size()));
        let path = format!("{BLOBS}/{}", blob.digest().digest());
        archive
            .append_data(&mut header(EntryType::Regular, blob.size()), &path, &mut reader)
            .context("write archive")?;
        ensure!(reader.digest() == *digest, "blob {digest} in the store is damaged; pull or build the image again");
    }
    file(&mut archive, INDEX_FILE, &serde_json::to_vec(&index).context("write index")?)?;
    if !docker.is_empty() {
        file(&mut archive, DOCKER_FILE, &serde_json::to_vec(&docker).context("write manifest.json")?)?;
    }
    file(&mut archive, LAYOUT_FILE, LAYOUT)?;
    archive.into_inner().and_then(|mut writer| writer.flush()).context("write archive")?;
    Ok(saved)
}

/// The root under its names: the whole one for containerd and Docker, the tag for skopeo. Written field by field: a
/// [`Descriptor`]'s annotations come in any order.
fn named_root(root: &Descriptor, reference: &Reference) -> Value {
    let mut annotations = BTreeMap::from([(CONTAINERD_NAME, reference.to_string())]);
    annotations.extend(reference.tag().map(|tag| (ANNOTATION_REF_NAME, tag.to_owned())));
    json!({
        "mediaType": root.media_type(), "digest": root.digest(), "size": root.size(), "annotations": annotations,
    })
}

/// An entry of Docker's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// For an image that Docker's own store could hold: one of ordinary layers.
async fn docker_entry(store: &Store, root: &Descriptor, reference: &Reference) -> Option<DockerEntry> {
    let image = image::resolve(store, root).await.ok()?;
    if image.format != Format::Rootfs {
        return None;
    }
    let Ok(Document::Manifest(manifest)) = Document::parse(&image.manifest, &store.document(&image.manifest).ok()?)
    else {
        return None;
    };
    let path = |blob: &Descriptor| format!("{BLOBS}/{}", blob.digest().digest());
    Some(DockerEntry {
        config: path(manifest.config()),
        repo_tags: reference.tag().map(|tag| format!("{}:{tag}", reference.name())).into_iter().collect(),
        layers: manifest.layers().iter().map(path).collect(),
    })
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn folder(archive: &mut tar::Builder<impl Write>, path: &str) -> Result<()> {
    archive.append_data(&mut header(EntryType::Directory, 0), path, std::io::empty()).context("write archive")
}

fn file(archive: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<()> {
    archive.append_data(&mut header(EntryType::Regular, bytes.len() as u64), path, bytes).context("write archive")
}
