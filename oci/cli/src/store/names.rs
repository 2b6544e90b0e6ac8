//! `index.json`: which name means which image.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{ErrorKind, Read},
};

use anyhow::{Context, Result, bail};
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageIndex, ImageIndexBuilder, MediaType, SCHEMA_VERSION};

use super::{INDEX_FILE, INDEX_LOCK, Store, lock::Lock};
use crate::reference::Reference;

/// containerd's label for where on a registry a blob is known to be, for mounting it from there: the host follows, the
/// value lists repositories with commas between.
const SOURCE: &str = "containerd.io/distribution.source.";
/// Repositories remembered for an image, the latest ones.
const MAX_SOURCES: usize = 8;
/// More than an index of ours comes to; what is larger is no index of ours.
const MAX_INDEX: u64 = 64 << 20;

impl Store {
    /// Gives the image the name, and takes it from the image that had it.
    ///
    /// # Errors
    /// The root is not in the store, or the reference's digest is another's.
    pub(crate) fn tag(&self, reference: &Reference, mut root: Descriptor) -> Result<()> {
        if reference.digest().is_some_and(|digest| digest != root.digest().as_ref()) {
            bail!("{reference} can't be the name of {}", root.digest());
        }
        // Between the look and the name, it could be garbage.
        self.keep()?;
        if !self.has(&root)? {
            bail!("{} is not in the store {}; it can't be tagged {reference}", root.digest(), self.root().display());
        }
        let mut annotations = root.annotations().clone().unwrap_or_default();
        annotations.insert(ANNOTATION_REF_NAME.to_owned(), reference.to_string());
        root.set_annotations(Some(annotations));
        self.change(|entries| {
            entries.retain(|entry| !is_named(entry, reference));
            entries.push(root);
            true
        })?;
        Ok(())
    }

    /// The image's root, an index or a manifest: the one of this name, or one of the same repository with the
    /// reference's digest.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let entries = self.entries()?;
        // Other tools, and archives, may call anything by a digest.
        let is_it = |entry: &&Descriptor| {
            is_named(entry, reference) && reference.digest().is_none_or(|digest| digest == entry.digest().as_ref())
        };
        if let Some(named) = entries.iter().find(is_it) {
            return Ok(Some(named.clone()));
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        let same = |entry: &&Descriptor| {
            entry.digest().as_ref() == digest
                && name(entry).parse().is_ok_and(|known: Reference| known.name() == reference.name())
        };
        Ok(entries.iter().find(same).cloned())
    }

    /// Every name and its image's root, sorted by name.
    pub(crate) fn list(&self) -> Result<Vec<(String, Descriptor)>> {
        let mut named: Vec<_> = self
            .entries()?
            .into_iter()
            .filter(|entry| !name(entry).is_empty())
            .map(|entry| (name(&entry).to_owned(), entry))
            .collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(named)
    }

    /// Takes the name away: whether there was one. The blobs stay until [`Store::gc`].
    pub(crate) fn untag(&self, reference: &Reference) -> Result<bool> {
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|entry| !is_named(entry, reference));
            entries.len() != before
        })
    }

    /// Remembers that the repository of `reference` has all blobs of the image, whatever names it has here.
    pub(crate) fn remember_source(&self, root: &Descriptor, reference: &Reference) -> Result<()> {
        let key = format!("{SOURCE}{}", reference.registry());
        self.change(|entries| {
            let mut changed = false;
            for entry in entries.iter_mut().filter(|entry| entry.digest() == root.digest()) {
                let mut annotations = entry.annotations().clone().unwrap_or_default();
                let known = annotations.entry(key.clone()).or_default();
                let mut repositories: Vec<&str> = known.split(',').filter(|known| !known.is_empty()).collect();
                if repositories.contains(&reference.repository()) {
                    continue;
                }
                repositories.push(reference.repository());
                let excess = repositories.len().saturating_sub(MAX_SOURCES);
                *known = repositories[excess..].join(",");
                entry.set_annotations(Some(annotations));
                changed = true;
            }
            changed
        })?;
        Ok(())
    }

    /// For each blob, the repositories on `registry` other than `except` that are known to have it.
    pub(crate) fn sources(&self, registry: &str, except: &str) -> Result<HashMap<String, BTreeSet<String>>> {
        let key = format!("{SOURCE}{registry}");
        let mut sources: HashMap<String, BTreeSet<String>> = HashMap::new();
        for entry in self.entries()? {
            let known = entry.annotations().as_ref().and_then(|annotations| annotations.get(&key));
            let Some(known) = known else { continue };
            let repositories: Vec<&str> =
                known.split(',').filter(|known| !known.is_empty() && *known != except).collect();
            if repositories.is_empty() {
                continue;
            }
            // A damaged image is worth no error here: it is only that its blobs will be uploaded.
            let Ok(graph) = self.graph(&entry) else { continue };
            for blob in graph.blobs {
                let from = sources.entry(blob.digest().to_string()).or_default();
                from.extend(repositories.iter().map(|&repository| repository.to_owned()));
            }
        }
        Ok(sources)
    }

    /// What `index.json` lists, named or not.
    pub(super) fn entries(&self) -> Result<Vec<Descriptor>> {
        let path = self.root().join(INDEX_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        let mut bytes = Vec::new();
        file.take(MAX_INDEX + 1).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
        if bytes.len() as u64 > MAX_INDEX {
            bail!("{} is larger than {} MiB; remove names with `lighter rm`", path.display(), MAX_INDEX >> 20);
        }
        let index: ImageIndex = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged; remove it to start anew", path.display()))?;
        Ok(index.manifests().clone())
    }

    /// Replaces `index.json` if `change` says so, which it is passed on.
    fn change(&self, change: impl FnOnce(&mut Vec<Descriptor>) -> bool) -> Result<bool> {
        // The new file is made where the garbage collector sweeps.
        self.keep()?;
        let _lock = Lock::exclusive(&self.root().join(INDEX_LOCK))?;
        let mut entries = self.entries()?;
        if !change(&mut entries) {
            return Ok(false);
        }
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(entries)
            .build()
            .context("build index")?;
        self.replace(INDEX_FILE, &serde_json::to_vec(&index).context("write index")?)?;
        Ok(true)
    }
}

fn name(entry: &Descriptor) -> &str {
    entry.annotations().as_ref().and_then(|annotations| annotations.get(ANNOTATION_REF_NAME)).map_or("", String::as_str)
}

/// Other tools may have written the name in short.
fn is_named(entry: &Descriptor, reference: &Reference) -> bool {
    name(entry).parse().is_ok_and(|named: Reference| named == *reference)
}
