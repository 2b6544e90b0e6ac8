//! Tar archives from strangers, and compressed ones.

use std::{
    ffi::OsString,
    io::{self, BufReader, ErrorKind, Read},
    ops::ControlFlow,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tar::EntryType;

/// Bytes of a name that has an entry of its own before the file's; what has longer ones was not made to be unpacked.
const MAX_NAME: u64 = 64 << 10;

/// Bytes that all layers of an image may unpack to: what is more is no WebAssembly image, or an attack.
pub(crate) const MAX_UNPACKED: u64 = 4 << 30;

/// The reader's bytes, decompressed if they begin like gzip or zstd, whatever the file is called.
pub(crate) fn decompressed<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut magic = [0; 4];
    let mut got = 0;
    while got < magic.len() {
        match reader.read(&mut magic[got..]).context("read archive")? {
            0 => break,
            more => got += more,
        }
    }
    let reader = io::Cursor::new(magic[..got].to_vec()).chain(reader);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(reader).context("read zstd archive")?),
        _ => Box::new(reader),
    })
}

/// Fails where there is more than may be.
pub(crate) struct Bounded<'a, R> {
    pub(crate) reader: R,
    /// Bytes that may still come.
    pub(crate) left: &'a mut u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        *self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(ErrorKind::FileTooLarge, format!("the image unpacks to more than {MAX_UNPACKED} bytes"))
        })?;
        Ok(read)
    }
}

/// What an archive says of one of its files.
#[derive(Debug)]
pub(crate) struct Member {
    /// Plain names without `.` and a leading `/`.
    pub(crate) path: PathBuf,
    pub(crate) kind: EntryType,
    /// Where a link leads, as it is written there.
    pub(crate) link: Option<PathBuf>,
    /// Permissions.
    pub(crate) mode: u32,
}

/// The members of an archive, one after the other.
pub(crate) struct Members<'a, R: Read>(tar::Entries<'a, R>);

impl<'a, R: Read> Members<'a, R> {
    pub(crate) fn new(archive: &'a mut tar::Archive<R>) -> Result<Self> {
        // Raw: the library would read names of any length into memory.
        Ok(Self(archive.entries().context("read archive")?.raw(true)))
    }

    /// The next one, and its bytes.
    ///
    /// # Errors
    /// The archive is damaged, or a path in it has `..`.
    pub(crate) fn next(&mut self) -> Result<Option<(Member, tar::Entry<'a, R>)>> {
        let mut long = Extended::default();
        for entry in self.0.by_ref() {
            let mut entry = entry.context("read archive")?;
            let kind = entry.header().entry_type();
            match kind {
                EntryType::GNULongName => long.path = Some(terminated(name_bytes(&mut entry)?)),
                EntryType::GNULongLink => long.link = Some(terminated(name_bytes(&mut entry)?)),
                EntryType::XHeader => long.read(&name_bytes(&mut entry)?),
                EntryType::XGlobalHeader => (),
                _ => {
                    let header = entry.header();
                    if long.size.is_some_and(|size| Some(size) != header.entry_size().ok()) {
                        bail!(
                            "a file in the archive is larger than its header can say; nothing of this size can be unpacked"
                        );
                    }
                    let path = match long.path.take() {
                        Some(path) => path,
                        None => header.path().context("read name in archive")?.into_owned(),
                    };
                    let link = match long.link.take() {
                        Some(link) => Some(link),
                        None => header.link_name().context("read link in archive")?.map(|link| link.into_owned()),
                    };
                    let mode = header.mode().context("read permissions in archive")?;
                    return Ok(Some((Member { path: plain(&path)?, kind, link, mode }, entry)));
                }
            }
        }
        Ok(None)
    }
}

/// Calls `visit` for each member of an archive until it breaks.
///
/// # Errors
/// The archive is damaged, or a path in it has `..`.
pub(super) fn visit<T>(
    reader: impl Read,
    mut visit: impl FnMut(&Path, EntryType, &mut dyn Read) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let mut archive = tar::Archive::new(reader);
    let mut members = Members::new(&mut archive)?;
    while let Some((member, mut bytes)) = members.next()? {
        if let ControlFlow::Break(found) = visit(&member.path, member.kind, &mut bytes)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What members of their own say of the one behind them.
#[derive(Default)]
struct Extended {
    path: Option<PathBuf>,
    link: Option<PathBuf>,
    size: Option<u64>,
}

impl Extended {
    /// Reads the records of a PAX header; what comes behind a damaged one is not read.
    /// Source: POSIX `pax`, "pax Extended Header": `LENGTH KEYWORD=VALUE\n`.
    fn read(&mut self, mut records: &[u8]) {
        while let Some((record, rest)) = pax_record(records) {
            let path = |value: &[u8]| Some(PathBuf::from(OsString::from_vec(value.to_vec())));
            if let Some(value) = record.strip_prefix(b"path=") {
                self.path = path(value);
            } else if let Some(value) = record.strip_prefix(b"linkpath=") {
                self.link = path(value);
            } else if let Some(value) = record.strip_prefix(b"size=") {
                self.size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
            }
            records = rest;
        }
    }
}

/// The first record, and the rest.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    Some((records.get(space + 1..length.checked_sub(1)?)?, records.get(length..)?))
}

/// A name that a zero byte ends.
fn terminated(mut name: Vec<u8>) -> PathBuf {
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
    PathBuf::from(OsString::from_vec(name))
}

fn name_bytes(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut bytes).context("read name in archive")?;
    if bytes.len() as u64 > MAX_NAME {
        bail!("a name in the archive has more than {MAX_NAME} bytes");
    }
    Ok(bytes)
}

/// The names in a path, none of which leads out of where the path begins.
pub(crate) fn plain(path: &Path) -> Result<PathBuf> {
    let mut names = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => (),
            Component::ParentDir | Component::Prefix(_) => bail!("{} leads out of the archive", path.display()),
        }
    }
    Ok(names)
}

/// The reader's bytes, of which there may be only so many.
pub(super) fn bounded(reader: &mut dyn Read, what: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(most.saturating_add(1)).read_to_end(&mut bytes).with_context(|| format!("read {}", what.display()))?;
    if bytes.len() as u64 > most {
        bail!("{} has more than the {most} bytes that such a file may have", what.display());
    }
    Ok(bytes)
}
