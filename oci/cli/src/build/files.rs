//! Layers of files: a tar archive that depends on names and contents only.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

use super::Timestamp;

/// Folders within folders; a link cycle can't occur, for links are kept as links.
const MAX_DEPTH: usize = 128;

/// A file or folder of this machine, and where it goes in the image: `SRC:DST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    source: PathBuf,
    destination: String,
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // The last one, for a file's name may hold a colon too.
        let at = text.rfind(":/").filter(|at| *at > 0);
        let Some(at) = at else { bail!("expected SRC:DST with an absolute DST, such as data.json:/data.json") };
        let (source, destination) = text.split_at(at);
        Ok(Self { source: source.into(), destination: destination[1..].to_owned() })
    }
}

/// What a layer holds, by path. Paths have no leading slash, as layers write them.
#[derive(Debug, Default)]
pub(crate) struct Files<'a>(BTreeMap<PathBuf, Entry<'a>>);

#[derive(Debug)]
enum Entry<'a> {
    Folder,
    File { path: PathBuf, executable: bool },
    Link { target: PathBuf },
    Bytes(&'a [u8]),
}

impl<'a> Files<'a> {
    /// Whether there is nothing to make a layer of.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in a file, or a folder with all that is in it: the folder's content goes into `DST`, a file goes to `DST`, or
    /// under its own name into a `DST` that ends in a slash. Links stay links.
    ///
    /// # Errors
    /// Something can't be read, is no file, folder or link, or is in another's place.
    pub(crate) fn add(&mut self, from: &Source) -> Result<()> {
        let Source { source, destination } = from;
        // Followed here, and only here: the user named it.
        let metadata = fs::metadata(source).with_context(|| format!("read {}", source.display()))?;
        let mut to = inside(destination)?;
        if metadata.is_dir() {
            return self.add_folder(source, &to, 0);
        }
        if destination.ends_with('/') {
            to.push(source.file_name().with_context(|| format!("{} has no file name", source.display()))?);
        }
        self.add_file(source, &metadata, to)
    }

    /// Puts these bytes at the absolute path `to`.
    ///
    /// # Errors
    /// Something is there already.
    pub(crate) fn add_bytes(&mut self, to: &str, bytes: &'a [u8]) -> Result<()> {
        self.insert(inside(to)?, Entry::Bytes(bytes))
    }

    /// Writes the archive: entries by name, owned by root, all of one time, with one of two modes.
    ///
    /// # Errors
    /// A file can't be read, or changed meanwhile; `out` fails.
    pub(crate) fn write(&self, out: impl Write, time: Timestamp) -> Result<()> {
        let mut archive = tar::Builder::new(out);
        for (name, entry) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mtime(time.seconds());
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            header.set_mode(0o644);
            let written = match entry {
                Entry::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    // A folder's name ends in a slash, for those who don't look at the type.
                    archive.append_data(&mut header, name.join(""), io::empty())
                }
                Entry::File { path, executable } => {
                    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                    let size = file.metadata().with_context(|| format!("read {}", path.display()))?.len();
                    header.set_size(size);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    archive.append_data(&mut header, name, Exactly { file, left: size })
                }
                Entry::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    archive.append_link(&mut header, name, target)
                }
                Entry::Bytes(bytes) => {
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, name, *bytes)
                }
            };
            written.with_context(|| format!("put /{} into the layer", name.display()))?;
        }
        archive.finish().context("finish the layer")
    }

    fn add_folder(&mut self, source: &Path, to: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!("{} is more than {MAX_DEPTH} folders deep", source.display());
        }
        if to != Path::new("") {
            self.insert(to.to_owned(), Entry::Folder)?;
        }
        for entry in fs::read_dir(source).with_context(|| format!("list {}", source.display()))? {
            let path = entry.with_context(|| format!("list {}", source.display()))?.path();
            let metadata = fs::symlink_metadata(&path).with_context(|| format!("read {}", path.display()))?;
            let Some(name) = path.file_name() else { continue };
            let to = to.join(name);
            if metadata.is_dir() {
                self.add_folder(&path, &to, depth + 1)?;
            } else {
                self.add_file(&path, &metadata, to)?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, source: &Path, metadata: &fs::Metadata, to: PathBuf) -> Result<()> {
        if metadata.is_symlink() {
            let target = fs::read_link(source).with_context(|| format!("read link {}", source.display()))?;
            return self.insert(to, Entry::Link { target });
        }
        if !metadata.is_file() {
            bail!(
                "{} is neither file, folder nor link (mode {:o}); leave it out of the image",
                source.display(),
                metadata.mode()
            );
        }
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.insert(to, Entry::File { path: source.to_owned(), executable })
    }

    /// Puts an entry and the folders above it in place.
    fn insert(&mut self, to: PathBuf, entry: Entry<'a>) -> Result<()> {
        if to == Path::new("") {
            bail!("/ is the image's root, not a file; give the file a name, as in SRC:/name");
        }
        for above in to.ancestors().skip(1).filter(|above| *above != Path::new("")) {
            match self.0.get(above) {
                None => drop(self.0.insert(above.to_owned(), Entry::Folder)),
                Some(Entry::Folder) => {}
                Some(_) => bail!("/{} can't be in /{}, which is a file", to.display(), above.display()),
            }
        }
        match (self.0.get(&to), &entry) {
            (None, _) => drop(self.0.insert(to, entry)),
            (Some(Entry::Folder), Entry::Folder) => {}
            _ => bail!("two things would be at /{} in the image", to.display()),
        }
        Ok(())
    }
}

/// An absolute path of the image, as a layer writes it.
fn inside(path: &str) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => inside.push(name),
            Component::ParentDir | Component::Prefix(_) => bail!("{path} leads out of itself; write it without `..`"),
        }
    }
    if !path.starts_with('/') {
        bail!("{path} is not an absolute path of the image");
    }
    Ok(inside)
}

/// A file that must not have grown or shrunk since its size was written.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it changed while it was read; try again"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn source(source: &Path, destination: &str) -> Source {
        Source { source: source.to_owned(), destination: destination.to_owned() }
    }

    /// Name, type, mode, owner, time, content or target of each entry.
    fn list(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                content = format!("-> {}", target.display());
            }
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 7));
            format!("{} {:o} {content}", entry.path().unwrap().display(), header.mode().unwrap())
        });
        entries.map(|entry| entry.trim_end().to_owned()).collect()
    }

    fn written(files: &Files<'_>) -> Vec<u8> {
        let mut archive = Vec::new();
        files.write(&mut archive, Timestamp::parse("7").unwrap()).unwrap();
        archive
    }

    #[test]
    fn a_layer_depends_on_names_and_contents_only() {
        let archives = [0, 1].map(|turn| {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path();
            fs::create_dir_all(root.join("d/sub")).unwrap();
            let names = ["d/b", "d/a", "d/sub/tool"];
            for name in if turn == 0 { names } else { [names[2], names[0], names[1]] } {
                fs::write(root.join(name), name).unwrap();
            }
            fs::set_permissions(root.join("d/sub/tool"), fs::Permissions::from_mode(0o700 + turn)).unwrap();
            fs::set_permissions(root.join("d/a"), fs::Permissions::from_mode(0o600)).unwrap();
            symlink("../a", root.join("d/sub/link")).unwrap();
            let mut files = Files::default();
            files.add_bytes("/app/hello.wasm", b"module").unwrap();
            files.add(&source(&root.join("d"), "/srv/data")).unwrap();
            files.add(&source(&root.join("d/b"), "/srv/")).unwrap();
            written(&files)
        });
        assert_eq!(archives[0], archives[1]);
        assert_eq!(
            list(&archives[0]),
            [
                "app/ 755",
                "app/hello.wasm 644 module",
                "srv/ 755",
                "srv/b 644 d/b",
                "srv/data/ 755",
                "srv/data/a 644 d/a",
                "srv/data/b 644 d/b",
                "srv/data/sub/ 755",
                "srv/data/sub/link 777 -> ../a",
                "srv/data/sub/tool 755 d/sub/tool",
            ]
        );
    }

    #[test]
    fn a_folder_can_be_the_images_root() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "a").unwrap();
        let mut files = Files::default();
        files.add(&source(folder.path(), "/")).unwrap();
        assert_eq!(list(&written(&files)), ["a 644 a"]);
    }

    #[test]
    fn long_names_survive() {
        let name = format!("/{}/{}", "d".repeat(120), "f".repeat(200));
        let mut files = Files::default();
        files.add_bytes(&name, b"x").unwrap();
        assert_eq!(list(&written(&files))[1], format!("{} 644 x", &name[1..]));
    }

    #[test]
    fn what_can_not_be_in_a_layer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "f").unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let table: &[(&Path, &str, &str)] = &[
            (&file, "/app", "two things would be at /app"),
            (&file, "/app/under", "which is a file"),
            (&file, "/../x", "without `..`"),
            (&file, "x", "not an absolute path"),
            (&fifo, "/fifo", "neither file"),
            (Path::new("/nonexistent"), "/x", "read /nonexistent"),
        ];
        for (from, to, expected) in table {
            let mut files = Files::default();
            files.add_bytes("/app", b"").unwrap();
            let error = format!("{:#}", files.add(&source(from, to)).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_not_a_damaged_layer() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "f").unwrap();
        let file = File::open(folder.path().join("f")).unwrap();
        let mut content = Vec::new();
        let error = Exactly { file, left: 2 }.read_to_end(&mut content).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
    }

    #[test]
    fn reads_source_and_destination() {
        for (text, from, to) in [("a:/b", "a", "/b"), ("a:b:/c/", "a:b", "/c/"), ("/x:/", "/x", "/")] {
            assert_eq!(text.parse::<Source>().unwrap(), source(Path::new(from), to));
        }
        for text in ["a", "a:b", ":/b", ""] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
