//! What an image consists of.

use std::collections::{BTreeSet, HashSet};

use anyhow::{Result, bail};
use lighter_oci::image::{Document, MAX_DOCUMENT, media, platform_name};
use oci_spec::image::Descriptor;

use super::Store;

/// Indexes within indexes, and documents in all: more than any builder makes.
const MAX_DEPTH: usize = 4;
const MAX_DOCUMENTS: usize = 1024;

/// Everything that a root leads to, each blob once.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// Indexes and manifests that are here, verified, those that are named before those that name them: the root last.
    pub(crate) documents: Vec<Descriptor>,
    /// Configs and layers of those manifests, whether they are here or not.
    pub(crate) blobs: Vec<Descriptor>,
    /// Manifests and indexes that an index names and that are not here.
    pub(crate) absent: Vec<Descriptor>,
}

impl Graph {
    /// Bytes of all of it.
    pub(crate) fn size(&self) -> u64 {
        self.documents.iter().chain(&self.blobs).fold(0, |sum: u64, blob| sum.saturating_add(blob.size()))
    }

    /// The platforms that were left out when the image was pulled.
    pub(crate) fn absent_platforms(&self) -> String {
        let names: BTreeSet<String> = self
            .absent
            .iter()
            .map(|blob| blob.platform().as_ref().map_or_else(|| blob.digest().to_string(), platform_name))
            .collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// # Errors
    /// Manifests are missing; the message names their platforms.
    pub(crate) fn require_whole(&self, image: &str) -> Result<()> {
        if self.absent.is_empty() {
            return Ok(());
        }
        bail!(
            "{image}: not all of it is here, {} is missing; choose what is here with --platform, or \
             `lighter pull --all-platforms {image}` first",
            self.absent_platforms()
        )
    }
}

impl Store {
    /// Follows indexes and manifests from `root` to every blob.
    ///
    /// # Errors
    /// The root isn't here, a document is damaged, or there are more than any builder makes.
    pub(crate) fn graph(&self, root: &Descriptor) -> Result<Graph> {
        let mut graph = Graph::default();
        let mut seen = HashSet::new();
        self.follow(root, 0, &mut seen, &mut graph)?;
        Ok(graph)
    }

    fn follow(&self, blob: &Descriptor, depth: usize, seen: &mut HashSet<String>, graph: &mut Graph) -> Result<()> {
        if !seen.insert(blob.digest().to_string()) {
            return Ok(());
        }
        if depth > MAX_DEPTH || seen.len() > MAX_DOCUMENTS {
            bail!("{}: indexes are nested too deep, or name more than {MAX_DOCUMENTS} blobs", blob.digest());
        }
        if blob.size() > MAX_DOCUMENT {
            bail!("{}: {} bytes are too many for a manifest; {MAX_DOCUMENT} are allowed", blob.digest(), blob.size());
        }
        let is_document = media::is_index(blob.media_type()) || media::is_manifest(blob.media_type());
        if depth > 0 && !is_document {
            // An index may list anything; what is no document leads nowhere.
            graph.blobs.push(blob.clone());
            return Ok(());
        }
        if depth > 0 && self.open_blob(blob.digest().as_ref())?.is_none() {
            graph.absent.push(blob.clone());
            return Ok(());
        }
        match Document::parse(blob, &self.document(blob)?)? {
            Document::Index(index) => {
                for entry in index.manifests() {
                    self.follow(entry, depth + 1, seen, graph)?;
                }
            }
            Document::Manifest(manifest) => {
                for part in std::iter::once(manifest.config()).chain(manifest.layers()) {
                    if seen.insert(part.digest().to_string()) {
                        graph.blobs.push(part.clone());
                    }
                }
            }
        }
        graph.documents.push(blob.clone());
        Ok(())
    }
}
