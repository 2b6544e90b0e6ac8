//! Modules that came as layers: `CACHE/modules/SHA256.wasm`, and what is known of images: `CACHE/images/SHA256.json`.
//!
//! Fetched once a digest and compared with it while written, under one lock a digest: two images never wait for each
//! other. What an image's digest leads to never changes, so that too is kept, and a container whose module is here
//! reads nothing of its image.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    NOTED_BYTES, checked,
    folder::{Temporary, evict, remove_entry, trusted_folder, used_now},
    lock::KeyLock,
};
use crate::{
    Error,
    module::{digest_of, hex},
};

/// The folder of the modules.
pub(super) const MODULES: &str = "modules";

/// The part of the cache folder that holds what images bring.
#[derive(Debug)]
pub struct Modules {
    modules: PathBuf,
    images: PathBuf,
    max_bytes: u64,
}

/// The layer that an image's module is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// SHA-256, 64 hex digits.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// A module that is being fetched. Nobody sees it before [`Fetch::finish`]; dropped, it was never there.
pub struct Fetch<'a> {
    temporary: Temporary,
    hasher: Sha256,
    written: u64,
    layer: &'a Layer,
    path: PathBuf,
    max_bytes: u64,
    _lock: KeyLock,
}

impl Modules {
    /// Opens the part of the cache at `root`, making what isn't there. Keeps at most `max_bytes` of modules.
    ///
    /// # Errors
    /// [`Error::CacheUntrusted`] if others could write to it, [`Error::Cache`] if it can't be made.
    pub fn open(root: &Path, max_bytes: u64) -> Result<Self, Error> {
        let (modules, images) = (root.join(MODULES), root.join("images"));
        trusted_folder(root)?;
        trusted_folder(&modules)?;
        trusted_folder(&images)?;
        Ok(Self { modules, images, max_bytes })
    }

    /// A module that is here and whole; a damaged one is removed.
    ///
    /// # Errors
    /// It can't be opened or read.
    pub fn get(&self, layer: &Layer) -> Result<Option<File>, Error> {
        let path = self.path(layer);
        let failed = |source| Error::Cache { operation: "read module", path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let noted = checked::is_noted(&file, &path);
        if file.metadata().map_err(failed)?.size() != layer.size
            || !noted && digest_of(&mut file, layer.size).map_err(failed)? != layer.digest
        {
            return remove_entry(&path).map(|()| None);
        }
        if !noted {
            checked::note(&file, &path);
        }
        used_now(&file);
        Ok(Some(file))
    }

    /// Begins to fetch a module, or returns `None` where somebody else has just done so.
    ///
    /// Blocks while another process fetches the same one.
    ///
    /// # Errors
    /// The folder can't be written, or the module is larger than all that may be kept.
    pub fn fetch<'a>(&self, layer: &'a Layer) -> Result<Option<Fetch<'a>>, Error> {
        if layer.size > self.max_bytes {
            return Err(Error::ModuleTooLarge {
                digest: format!("sha256:{}", layer.digest),
                size: layer.size,
                most: self.max_bytes,
            });
        }
        let lock = KeyLock::acquire(&self.modules.join(format!("{}.lock", layer.digest)))?;
        if self.get(layer)?.is_some() {
            return Ok(None);
        }
        let temporary = Temporary::new(self.modules.join(format!("{}.tmp", layer.digest)))?;
        Ok(Some(Fetch {
            temporary,
            hasher: Sha256::new(),
            written: 0,
            layer,
            path: self.path(layer),
            max_bytes: self.max_bytes,
            _lock: lock,
        }))
    }

    /// The module of the image whose root descriptor has this digest (64 hex digits), as found out before.
    #[must_use]
    pub fn known(&self, root: &str) -> Option<Layer> {
        let bytes = fs::read(self.images.join(format!("{root}.json"))).ok()?;
        // Half a file, after a power cut: found out again.
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes what an image's module is. The oldest notes go: what they say is found out again.
    ///
    /// # Errors
    /// It can't be written, or an old one removed.
    pub fn note(&self, root: &str, layer: &Layer) -> Result<(), Error> {
        let path = self.images.join(format!("{root}.json"));
        let temporary = self.images.join(format!("{root}.{}.tmp", std::process::id()));
        let written = serde_json::to_vec(layer)
            .map_err(io::Error::other)
            .and_then(|json| fs::write(&temporary, json))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|source| {
            let _ = fs::remove_file(&temporary);
            Error::Cache { operation: "write", path: path.clone(), source }
        })?;
        evict(&self.images, "json", NOTED_BYTES, &path)
    }

    fn path(&self, layer: &Layer) -> PathBuf {
        self.modules.join(format!("{}.wasm", layer.digest))
    }
}

impl Write for Fetch<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.temporary.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.file.flush()
    }
}

impl Fetch<'_> {
    /// Compares size and digest, and gives the module its name.
    ///
    /// # Errors
    /// It is another one, or can't be renamed; then nothing is left of it.
    pub fn finish(self) -> Result<(), Error> {
        let digest = format!("sha256:{}", self.layer.digest);
        if self.written != self.layer.size {
            return Err(Error::BlobSize { digest, expected: self.layer.size, found: self.written });
        }
        let found = hex(&self.hasher.finalize());
        if found != self.layer.digest {
            return Err(Error::BlobDigest { digest, found: format!("sha256:{found}") });
        }
        let failed = |operation, source| Error::Cache { operation, path: self.path.clone(), source };
        fs::rename(&self.temporary.path, &self.path).map_err(|source| failed("rename module", source))?;
        checked::note(&self.temporary.file, &self.path);
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        evict(folder, "wasm", self.max_bytes, &self.path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fs::FileTimes, time::SystemTime};

    use super::*;

    fn layer(bytes: &[u8]) -> Layer {
        Layer { digest: hex(&Sha256::digest(bytes)), size: bytes.len() as u64 }
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_fetched_is_what_was_asked_for_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let modules = Modules::open(folder.path(), 1000).unwrap();
        let wanted = layer(b"module");
        assert!(modules.get(&wanted).unwrap().is_none());
        for (bytes, expected) in [(&b"modul"[..], "5 bytes"), (b"modulo", "damaged"), (b"modules", "7 bytes")] {
            let mut fetch = modules.fetch(&wanted).unwrap().unwrap();
            fetch.write_all(bytes).unwrap();
            assert!(modules.get(&wanted).unwrap().is_none());
            let error = fetch.finish().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(names(&folder.path().join("modules")), [""; 0]);
        }
        let mut fetch = modules.fetch(&wanted).unwrap().unwrap();
        fetch.write_all(b"module").unwrap();
        fetch.finish().unwrap();
        assert_eq!(io::read_to_string(modules.get(&wanted).unwrap().unwrap()).unwrap(), "module");
        assert!(modules.fetch(&wanted).unwrap().is_none());
        assert_eq!(names(&folder.path().join("modules")), [format!("{}.wasm", wanted.digest)]);
    }

    #[test]
    fn a_damaged_module_is_fetched_again_and_a_giant_never() {
        let folder = tempfile::tempdir().unwrap();
        let modules = Modules::open(folder.path(), 1000).unwrap();
        let wanted = layer(b"module");
        for damaged in [&b"mod"[..], b"modulo"] {
            fs::write(modules.path(&wanted), damaged).unwrap();
            assert!(modules.fetch(&wanted).unwrap().is_some());
            assert_eq!(names(&folder.path().join("modules")), [""; 0]);
        }
        let giant = Layer { digest: "0".repeat(64), size: 1001 };
        assert!(modules.fetch(&giant).is_err());
    }

    #[test]
    fn what_an_image_leads_to_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let modules = Modules::open(folder.path(), 1000).unwrap();
        let root = "a".repeat(64);
        assert_eq!(modules.known(&root), None);
        modules.note(&root, &layer(b"x")).unwrap();
        assert_eq!(modules.known(&root), Some(layer(b"x")));
        let old = folder.path().join("images/old.json");
        fs::write(&old, " ".repeat(NOTED_BYTES as usize)).unwrap();
        File::open(&old).unwrap().set_times(FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH)).unwrap();
        modules.note(&root, &layer(b"x")).unwrap();
        assert!(!old.exists() && modules.known(&root).is_some());
        fs::write(folder.path().join(format!("images/{root}.json")), "{").unwrap();
        assert_eq!(modules.known(&root), None);
    }
}
