//! Tar archives from strangers, and compressed ones.

use std::{
    ffi::OsString,
    io::{self, BufReader, Read},
    ops::ControlFlow,
    os::unix::ffi::OsStringExt,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tar::EntryType;

/// Bytes of a name that has an entry of its own before the file's; what has longer ones was not made to be unpacked.
const MAX_NAME: u64 = 64 << 10;

/// The reader's bytes, decompressed if they begin like gzip or zstd, whatever the file is called.
pub(super) fn decompressed<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
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

/// Calls `visit` for each entry, with its path as plain names without `.` and a leading `/`, until it breaks.
///
/// # Errors
/// The archive is damaged, or a path in it has `..`.
pub(super) fn visit<T>(
    reader: impl Read,
    mut visit: impl FnMut(&Path, EntryType, &mut dyn Read) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let mut archive = tar::Archive::new(reader);
    let mut long: Option<PathBuf> = None;
    // Raw: the library would read names of any length into memory.
    for entry in archive.entries().context("read archive")?.raw(true) {
        let mut entry = entry.context("read archive")?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let mut name = name_bytes(&mut entry)?;
                name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                long = Some(PathBuf::from(OsString::from_vec(name)));
            }
            EntryType::XHeader => long = pax_path(&name_bytes(&mut entry)?).or(long),
            EntryType::GNULongLink | EntryType::XGlobalHeader => (),
            _ => {
                let named = match long.take() {
                    Some(path) => path,
                    None => entry.header().path().context("read name in archive")?.into_owned(),
                };
                if let ControlFlow::Break(found) = visit(&plain(&named)?, kind, &mut entry)? {
                    return Ok(Some(found));
                }
            }
        }
    }
    Ok(None)
}

fn name_bytes(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut bytes).context("read name in archive")?;
    if bytes.len() as u64 > MAX_NAME {
        bail!("a name in the archive has more than {MAX_NAME} bytes");
    }
    Ok(bytes)
}

/// The `path` record of a PAX header. Source: POSIX `pax`, "pax Extended Header": `LENGTH KEYWORD=VALUE\n`.
fn pax_path(records: &[u8]) -> Option<PathBuf> {
    let mut path = None;
    let mut rest = records;
    while let Some(space) = rest.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length.checked_sub(1)?)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            path = Some(PathBuf::from(OsString::from_vec(value.to_vec())));
        }
        rest = rest.get(length..)?;
    }
    path
}

/// The names in a path, none of which leads out of where the path begins.
pub(super) fn plain(path: &Path) -> Result<PathBuf> {
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
