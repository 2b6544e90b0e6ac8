//! From an archive or folder in OCI's image layout to the store.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use lighter_oci::image::{MAX_DOCUMENT, media};
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageIndex};
use serde::Serialize;
use tar::EntryType;

use super::{CONTAINERD_NAME, archive, push::require_blobs};
use crate::{
    reference::Reference,
    store::{BLOBS, INDEX_FILE, LAYOUT_FILE, Store, check_layout},
};

/// What was loaded.
#[derive(Debug, Serialize)]
pub(crate) struct Loaded {
    /// The whole name.
    pub(crate) reference: String,
    /// Its root's digest.
    pub(crate) digest: String,
}

/// Loads every image of a folder, or of a tar archive (also gzip or zstd). `name` is for the one image of a layout that
/// names none.
pub(crate) fn load_path(store: &Store, path: &Path, name: Option<&Reference>) -> Result<Vec<Loaded>> {
    let what = path.display().to_string();
    if path.is_dir() {
        let layout = read_folder(store, path).with_context(|| what.clone())?;
        return finish(store, layout, name).context(what);
    }
    let file = File::open(path).with_context(|| format!("open {what}"))?;
    load(store, file, name).context(what)
}

/// Loads every image of a tar archive, which may be gzip or zstd.
pub(crate) fn load(store: &Store, reader: impl Read, name: Option<&Reference>) -> Result<Vec<Loaded>> {
    let layout = read_archive(store, reader)?;
    finish(store, layout, name)
}

/// The files that aren't blobs.
#[derive(Debug, Default)]
struct Layout {
    index: Option<Vec<u8>>,
    layout: Option<Vec<u8>>,
    has_docker_file: bool,
}

fn read_archive(store: &Store, reader: impl Read) -> Result<Layout> {
    let mut layout = Layout::default();
    let mut reader = BufReader::new(archive::decompressed(reader)?);
    ensure!(!reader.fill_buf().context("read archive")?.is_empty(), "the archive is empty");
    archive::visit::<()>(reader, |path, kind, reader| {
        match path.to_str().unwrap_or_default() {
            LAYOUT_FILE if kind.is_file() => layout.layout = Some(archive::bounded(reader, path, MAX_DOCUMENT)?),
            INDEX_FILE if kind.is_file() => layout.index = Some(archive::bounded(reader, path, MAX_DOCUMENT)?),
            "manifest.json" => layout.has_docker_file = true,
            _ => {
                if let Ok(name) = path.strip_prefix(BLOBS)
                    && kind != EntryType::Directory
                {
                    ensure!(kind.is_file(), "{} is not a regular file", path.display());
                    take(store, name, reader)?;
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(layout)
}

fn read_folder(store: &Store, folder: &Path) -> Result<Layout> {
    // Links could lead anywhere, and pipes wait for ever.
    let open = |path: PathBuf| -> Result<Option<File>> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => {
                let is_file = file.metadata().with_context(|| format!("look at {}", path.display()))?.is_file();
                ensure!(is_file, "{} is not a regular file", path.display());
                Ok(Some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("open {}", path.display())),
        }
    };
    let document = |name: &str| -> Result<Option<Vec<u8>>> {
        let Some(mut file) = open(folder.join(name))? else { return Ok(None) };
        archive::bounded(&mut file, Path::new(name), MAX_DOCUMENT).map(Some)
    };
    let layout = Layout {
        index: document(INDEX_FILE)?,
        layout: document(LAYOUT_FILE)?,
        has_docker_file: folder.join("manifest.json").exists(),
    };
    let blobs = folder.join(BLOBS);
    if layout.index.is_some() {
        let failed = || format!("list {}", blobs.display());
        for entry in fs::read_dir(&blobs).with_context(failed)? {
            let name = PathBuf::from(entry.with_context(failed)?.file_name());
            if let Some(mut file) = open(blobs.join(&name))? {
                take(store, &name, &mut file)?;
            }
        }
    }
    Ok(layout)
}

/// Stores one blob, if its bytes are what its name says.
fn take(store: &Store, name: &Path, reader: &mut dyn Read) -> Result<()> {
    let mut writer = store.writer()?;
    io::copy(reader, &mut writer).with_context(|| format!("{BLOBS}/{}", name.display()))?;
    let named = name.to_str().unwrap_or_default();
    writer.finish_as(&format!("sha256:{named}"))
}

/// Names what the index lists, if all of it came.
fn finish(store: &Store, layout: Layout, name: Option<&Reference>) -> Result<Vec<Loaded>> {
    let (Some(marker), Some(index)) = (&layout.layout, &layout.index) else {
        if layout.has_docker_file {
            bail!("this is an archive of an old `docker save`, without an OCI layout; save it with Docker 25 or newer");
        }
        bail!("there is no {LAYOUT_FILE} and {INDEX_FILE} in it, so it is no OCI image layout");
    };
    check_layout(marker).context(LAYOUT_FILE)?;
    let index: ImageIndex = serde_json::from_slice(index).with_context(|| format!("{INDEX_FILE} is damaged"))?;
    let entries: Vec<&Descriptor> = index
        .manifests()
        .iter()
        .filter(|entry| media::is_index(entry.media_type()) || media::is_manifest(entry.media_type()))
        .collect();
    ensure!(!entries.is_empty(), "{INDEX_FILE} lists no image");
    let mut named = Vec::new();
    for entry in &entries {
        let reference = match name {
            Some(name) if entries.len() == 1 => name.clone(),
            Some(_) => bail!("there are {} images in it; --tag is for one", entries.len()),
            None => name_of(entry)?,
        };
        // Of an index, some platforms are enough; of what is there, all.
        let graph = store.graph(entry).with_context(|| format!("{reference}"))?;
        require_blobs(store, &graph, &reference)?;
        if graph.blobs.is_empty() {
            graph.require_whole(&reference.to_string())?;
        }
        named.push((reference, Descriptor::new(entry.media_type().clone(), entry.size(), entry.digest().clone())));
    }
    let mut loaded = Vec::new();
    for (reference, root) in named {
        loaded.push(Loaded { reference: reference.to_string(), digest: root.digest().to_string() });
        store.tag(&reference, root)?;
    }
    Ok(loaded)
}

/// The name that an entry was saved under.
fn name_of(entry: &Descriptor) -> Result<Reference> {
    let annotation = |key: &str| entry.annotations().as_ref().and_then(|annotations| annotations.get(key));
    let name = annotation(CONTAINERD_NAME).or_else(|| {
        // Layouts that name the tag alone leave open of what.
        annotation(ANNOTATION_REF_NAME).filter(|name| name.contains(['/', ':']))
    });
    let Some(name) = name else { bail!("{} has no name in {INDEX_FILE}; give it one with --tag", entry.digest()) };
    Ok(name.parse::<Reference>()?)
}
