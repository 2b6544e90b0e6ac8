//! Layers of a rootfs image, laid over each other in a private folder.
//!
//! Each name is resolved beneath that folder, whatever links the image has. In the end everything belongs to the guest's
//! user: the folder is a copy of its own, and who isn't root couldn't give files away. Devices, FIFOs and set-id bits are
//! left out.
//!
//! Source: OCI image-spec, `layer.md`.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::{fcntl::AtFlags, unistd::fchownat};
use pathrs::{InodeType, Root, flags::OpenFlags};
use tar::EntryType;

use super::user::User;
use crate::transfer::{Bounded, MAX_UNPACKED, Member, Members, decompressed, plain};

/// Files and folders that there may be in all layers.
const MAX_FILES: u64 = 200_000;
/// Bytes that the names of what one layer brings may have, each with the folders above it.
const MAX_NAMES: u64 = 64 << 20;
/// Folders within folders, whatever links lead there: who walks them takes memory and descriptors for each.
const MAX_DEPTH: usize = 128;
/// Bytes of a path, with the zero byte. Source: `PATH_MAX`, path_resolution(7).
const MAX_PATH: usize = 4096;
/// A file of this name says that another of the rest of the name is gone.
const WHITEOUT: &[u8] = b".wh.";
/// A file of this name says that its folder shows nothing of the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Files of names like this are bookkeeping of a union filesystem's.
const BOOKKEEPING: &[u8] = b".wh..wh.";

/// A root filesystem in the making.
pub(crate) struct RootFolder {
    tree: Tree,
    bytes_left: u64,
    files_left: u64,
}

impl RootFolder {
    /// Begins with the empty folder `path`.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let root = Root::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self { tree: Tree(root), bytes_left: MAX_UNPACKED, files_left: MAX_FILES })
    }

    /// Lays all of them over each other, the first lowest.
    pub(crate) async fn add_all(&mut self, layers: &mut Vec<File>) -> Result<()> {
        for (number, layer) in layers.drain(..).enumerate() {
            self.add(layer).await.with_context(|| format!("layer {}", number + 1))?;
        }
        Ok(())
    }

    /// Lays a layer over what is there: a tar archive, as it is or compressed by gzip or zstd.
    ///
    /// Lets others run between the files.
    pub(crate) async fn add(&mut self, layer: File) -> Result<()> {
        let mut archive = tar::Archive::new(Bounded { reader: decompressed(layer)?, left: &mut self.bytes_left });
        let mut members = Members::new(&mut archive)?;
        let mut brought = Brought { paths: HashSet::new(), names_left: MAX_NAMES, files_left: &mut self.files_left };
        while let Some((member, mut bytes)) = members.next()? {
            tokio::task::yield_now().await;
            let put = self.tree.put(&member, &mut bytes, &mut brought);
            put.with_context(|| format!("unpack {}", member.path.display()))?;
        }
        Ok(())
    }

    /// Gives everything to `user`.
    pub(crate) fn give(&self, user: User) -> Result<()> {
        self.tree.give(Path::new(""), user).with_context(|| format!("give files to user {}", user.uid))
    }

    /// The start of a file, at most `most` bytes, and `None` if there is no such file.
    pub(crate) fn read(&self, path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
        let failed = || format!("read {}", path.display());
        let Ok(handle) = self.tree.0.resolve(path) else { return Ok(None) };
        let file = handle.reopen(OpenFlags::O_RDONLY).with_context(failed)?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).with_context(failed)?;
        Ok(Some(bytes))
    }
}

/// What a layer brought, which its own whiteouts don't mean. By the members' own letters: names in a layer are compared as
/// they are written.
struct Brought<'a> {
    paths: HashSet<PathBuf>,
    names_left: u64,
    files_left: &'a mut u64,
}

impl Brought<'_> {
    /// Counts a file of the archive's.
    fn count(&mut self) -> Result<()> {
        let left = self.files_left.checked_sub(1);
        *self.files_left = left.with_context(|| format!("the image has more than {MAX_FILES} files"))?;
        Ok(())
    }

    /// Takes in a path that was counted, and counts the folders above it that no member names.
    fn add(&mut self, path: &Path) -> Result<()> {
        for (above, path) in path.ancestors().filter(|path| path.file_name().is_some()).enumerate() {
            if self.paths.contains(path) {
                break;
            }
            if above > 0 {
                self.count()?;
            }
            let left = self.names_left.checked_sub(path.as_os_str().len() as u64);
            self.names_left = left.with_context(|| format!("the layer's names have more than {MAX_NAMES} bytes"))?;
            self.paths.insert(path.to_owned());
        }
        Ok(())
    }

    fn has(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

/// A folder that no name leads out of.
struct Tree(Root);

impl Tree {
    fn put(&self, member: &Member, bytes: &mut dyn Read, brought: &mut Brought<'_>) -> Result<()> {
        let Member { path, kind, link, mode } = member;
        brought.count()?;
        let Some(name) = path.file_name() else { return Ok(()) };
        if path.as_os_str().len() >= MAX_PATH {
            bail!("its name is longer than Linux takes");
        }
        bound_depth(path.components().count())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.white_out(folder, name, brought);
        }
        brought.add(path)?;
        let target = || link.as_deref().context("it is a link to nowhere");
        match kind {
            EntryType::Directory => {
                let there = self.0.resolve_nofollow(path).map(|handle| File::from(OwnedFd::from(handle)));
                if !there.is_ok_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_dir())) {
                    self.make_room(path, folder)?;
                    self.0.create(path, &InodeType::Directory(Permissions::from_mode(0o700)))?;
                }
                settle(&self.open_folder(path)?, *mode | 0o700)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                self.make_room(path, folder)?;
                let flags = OpenFlags::O_WRONLY | OpenFlags::O_EXCL | OpenFlags::O_CREAT | OpenFlags::O_NOFOLLOW;
                let mut file = self.0.create_file(path, flags, &Permissions::from_mode(0o600))?;
                io::copy(bytes, &mut file)?;
                settle(&file, *mode | 0o400)?;
            }
            EntryType::Symlink => {
                let target = target()?.to_owned();
                self.make_room(path, folder)?;
                self.0.create(path, &InodeType::Symlink(target))?;
            }
            EntryType::Link => {
                let target = plain(target()?)?;
                if target != *path {
                    self.make_room(path, folder)?;
                    self.0.create(path, &InodeType::Hardlink(target))?;
                }
            }
            // Nothing that a guest could use: the sandbox has a /dev of its own.
            EntryType::Char | EntryType::Block | EntryType::Fifo => {}
            other => bail!("it is of a kind ({other:?}) that layers don't have; build the image with another tool"),
        }
        Ok(())
    }

    /// Takes away what a layer below has.
    fn white_out(&self, folder: &Path, name: &OsStr, brought: &Brought<'_>) -> Result<()> {
        let name = name.as_bytes();
        if name == OPAQUE {
            self.empty(folder, brought)?;
        } else if !name.starts_with(BOOKKEEPING)
            && let Some(name) = name.strip_prefix(WHITEOUT).filter(|name| ![b"", &b"."[..], b".."].contains(name))
        {
            let path = folder.join(OsStr::from_bytes(name));
            if !brought.has(&path) {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Leaves of a folder only what this layer brought.
    fn empty(&self, folder: &Path, brought: &Brought<'_>) -> Result<()> {
        // Not a folder, or not there: nothing to hide.
        let Ok(listed) = self.open_folder(folder) else { return Ok(()) };
        for name in names(listed)? {
            let path = folder.join(name);
            if !brought.has(&path) {
                self.remove(&path)?;
            } else if self.0.readlink(&path).is_err() {
                self.empty(&path, brought)?;
            }
        }
        Ok(())
    }

    /// Makes the folders above `path`, and removes what is in its place.
    fn make_room(&self, path: &Path, folder: &Path) -> Result<()> {
        self.make_folders(folder)?;
        bound_depth(self.depth(folder)?)?;
        self.remove(path)
    }

    /// How far below the root a folder really is, whatever links led there.
    fn depth(&self, folder: &Path) -> Result<usize> {
        let real = |path: &Path| -> Result<PathBuf> {
            let folder = self.open_folder(path)?;
            fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).context("find out where it is")
        };
        if folder.as_os_str().is_empty() {
            return Ok(0);
        }
        let (root, folder) = (real(Path::new(""))?, real(folder)?);
        Ok(folder.components().count().saturating_sub(root.components().count()))
    }

    fn make_folders(&self, folder: &Path) -> Result<()> {
        if folder.as_os_str().is_empty() || self.0.resolve(folder).is_ok() {
            return Ok(());
        }
        self.make_folders(folder.parent().unwrap_or(Path::new("")))?;
        self.0.create(folder, &InodeType::Directory(Permissions::from_mode(0o700)))?;
        Ok(settle(&self.open_folder(folder)?, 0o755)?)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match self.0.remove_all(path) {
            Err(error) if is_missing(&error) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn open_folder(&self, path: &Path) -> Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(self.0.open_subpath(path, OpenFlags::O_RDONLY | OpenFlags::O_DIRECTORY)?)
    }

    fn give(&self, path: &Path, user: User) -> Result<()> {
        let handle = if path.as_os_str().is_empty() { self.0.resolve(".")? } else { self.0.resolve_nofollow(path)? };
        let file = File::from(OwnedFd::from(handle));
        fchownat(&file, "", Some(user.uid.into()), Some(user.gid.into()), AtFlags::AT_EMPTY_PATH)?;
        if file.metadata()?.is_dir() {
            for name in names(self.open_folder(path)?)? {
                self.give(&path.join(name), user)?;
            }
        }
        Ok(())
    }
}

fn bound_depth(depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        bail!("it lies deeper than the {MAX_DEPTH} folders that may be within each other");
    }
    Ok(())
}

/// Permissions whatever the umask says, without set-id bits.
fn settle(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode & 0o777))
}

/// The names in a folder.
fn names(folder: File) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(folder.into()).context("list folder")?.iter() {
        let name = OsStr::from_bytes(entry.context("list folder")?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_missing(error: &pathrs::error::Error) -> bool {
    let pathrs::error::ErrorKind::OsError(Some(errno)) = error.kind() else { return false };
    matches!(io::Error::from_raw_os_error(errno).kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io::Seek, os::unix::fs::MetadataExt};

    use super::*;

    /// A member of a layer: kind, path, and what it holds or leads to.
    type Row = (char, &'static str, &'static str);

    /// An archive as a stranger would make it: names are written as they are.
    fn layer(rows: &[Row]) -> File {
        let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
        for (kind, path, content) in rows {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            let (kind, mode) = match kind {
                'd' => (EntryType::Directory, 0o755),
                'l' => (EntryType::Symlink, 0o777),
                'h' => (EntryType::Link, 0o644),
                'c' => (EntryType::Char, 0o666),
                's' => (EntryType::GNUSparse, 0o666),
                _ => (EntryType::Regular, 0o4644),
            };
            header.set_entry_type(kind);
            header.set_mode(mode);
            let size = if kind == EntryType::Regular { content.len() as u64 } else { 0 };
            header.set_size(size);
            if matches!(kind, EntryType::Symlink | EntryType::Link) {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            archive.append(&header, content.as_bytes().take(size)).unwrap();
        }
        let mut file = archive.into_inner().unwrap();
        file.rewind().unwrap();
        file
    }

    /// Lays the layers over each other. `Err` is the first failure.
    async fn unpacked(layers: &[&[Row]]) -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rootfs")).unwrap();
        fs::write(folder.path().join("outside"), "untouched").unwrap();
        let mut rootfs = RootFolder::new(&folder.path().join("rootfs"))?;
        for rows in layers {
            let added = rootfs.add(layer(rows)).await;
            assert_eq!(fs::read_to_string(folder.path().join("outside")).unwrap(), "untouched");
            added?;
        }
        Ok(folder)
    }

    /// The paths of what is in a folder, sorted, folders with a slash.
    fn tree(root: &Path) -> Vec<String> {
        fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if entry.file_type().unwrap().is_dir() {
                    found.push(name + "/");
                    walk(root, &entry.path(), found);
                } else {
                    found.push(name);
                }
            }
        }
        let mut found = Vec::new();
        walk(root, root, &mut found);
        found.sort();
        found
    }

    #[tokio::test]
    async fn layers_lie_over_each_other() {
        let table: &[(&[&[Row]], &[&str])] = &[
            (&[&[('f', "a/b/c", "1"), ('d', "./d/", ""), ('f', "/e", "")]], &["a/", "a/b/", "a/b/c", "d/", "e"]),
            // Whiteouts: of a file, of a folder, of what isn't there, of a whole folder's content.
            (&[&[('f', "a/b", ""), ('f', "a/c", "")], &[('f', "a/.wh.b", "")]], &["a/", "a/c"]),
            (&[&[('f', "a/b/c", "")], &[('f', ".wh.a", ""), ('f', ".wh.nope", "")]], &[]),
            (
                &[&[('f', "a/x", ""), ('f', "a/b/x", "")], &[('f', "a/b/y", ""), ('f', "a/.wh..wh..opq", "")]],
                &["a/", "a/b/", "a/b/y"],
            ),
            (&[&[('f', "a/x", "")], &[('f', "a/.wh..wh..opq", ""), ('f', "a/y", "")]], &["a/", "a/y"]),
            (&[&[('f', ".wh..wh.plnk", ""), ('f', ".wh...", "")]], &[]),
            // A file in a folder's place, and a folder in a file's.
            (&[&[('f', "a/b", ""), ('f', "c", "")], &[('f', "a", ""), ('d', "c", "")]], &["a", "c/"]),
            // A folder that is there stays as it is.
            (&[&[('f', "a/b", "")], &[('d', "a", "")]], &["a/", "a/b"]),
            // Links are resolved in the root filesystem.
            (
                &[&[('d', "usr/lib", ""), ('l', "lib", "/usr/lib"), ('f', "lib/x", "")]],
                &["lib", "usr/", "usr/lib/", "usr/lib/x"],
            ),
            (&[&[('f', "a", "1"), ('h', "b", "a"), ('h', "a", "a")]], &["a", "b"]),
            (&[&[('c', "dev/sda", ""), ('f', "dev/x", "")]], &["dev/", "dev/x"]),
        ];
        for (layers, expected) in table {
            let folder = unpacked(layers).await.unwrap();
            assert_eq!(tree(&folder.path().join("rootfs")), *expected, "{layers:?}");
        }
    }

    #[tokio::test]
    async fn nothing_gets_out() {
        let table: &[(&[Row], &str)] = &[
            (&[('f', "../outside", "x")], "leads out"),
            (&[('h', "b", "../outside")], "leads out"),
            (&[('h', "b", "/outside")], "unpack b"),
            (&[('l', "up", ".."), ('f', "up/outside", "x")], ""),
            (&[('l', "up", "../.."), ('f', "up/.wh.outside", "")], ""),
            (&[('l', "up", ".."), ('f', "up/.wh..wh..opq", "")], ""),
            (&[('l', "x", "../outside"), ('f', "x", "y")], ""),
            (&[('s', "x", "")], "other"),
        ];
        for (rows, expected) in table {
            match unpacked(&[rows]).await {
                Ok(_) => assert_eq!(*expected, "", "{rows:?}"),
                Err(error) => {
                    let said = format!("{error:#}");
                    assert!(!expected.is_empty() && said.contains(expected), "{rows:?}: {said}");
                }
            }
        }
    }

    #[tokio::test]
    async fn files_keep_their_mode_without_set_id_bits() {
        let folder = unpacked(&[&[('f', "a/b", "1")]]).await.unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join("rootfs").join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a/b"), mode("a")), (0o644, 0o755));
    }

    #[tokio::test]
    async fn an_image_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut rootfs = RootFolder::new(folder.path()).unwrap();
        rootfs.bytes_left = 1024;
        let error = rootfs.add(layer(&[('f', "a", "1"), ('f', "b", "1")])).await.unwrap_err();
        assert!(format!("{error:#}").contains("unpacks to more"), "{error:#}");
        rootfs.bytes_left = MAX_UNPACKED;
        rootfs.files_left = 1;
        let error = rootfs.add(layer(&[('f', "a", "1"), ('f', "b", "1")])).await.unwrap_err();
        assert!(format!("{error:#}").contains("files"), "{error:#}");
        // Folders that are there by a file's name alone are counted as well.
        rootfs.files_left = 3;
        let error = rootfs.add(layer(&[('f', "1/2/3/4", "1")])).await.unwrap_err();
        assert!(format!("{error:#}").contains("files"), "{error:#}");
    }

    #[tokio::test]
    async fn folders_that_links_make_deep_are_refused() {
        // As long as a name may be in this archive.
        let some: &str = "d/".repeat(45).leak();
        let (link, twice, thrice) =
            (format!("/{some}").leak(), format!("l/{some}").leak(), format!("m/{some}f").leak());
        let rows: &[Row] = &[('d', some, ""), ('l', "l", link), ('d', twice, ""), ('l', "m", twice)];
        unpacked(&[rows]).await.unwrap();
        let error = format!("{:#}", unpacked(&[rows, &[('f', thrice, "")]]).await.unwrap_err());
        assert!(error.contains("deeper"), "{error}");
    }
}
