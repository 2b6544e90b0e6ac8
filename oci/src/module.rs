//! Which bytes are WebAssembly, and of which kind: told by magic numbers, never by a file's name.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::Error;

/// What an engine must be able to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A core module: WASI 0.1.
    Module,
    /// A component: WASI 0.2 and later.
    Component,
}

impl Kind {
    /// As a sentence names it.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Module => "core module",
            Self::Component => "component",
        }
    }
}

/// Tells a module from a component by the first bytes of a file, or what the file is instead.
///
/// `head` is the start of the file, 16 bytes or the whole file if it is shorter. The preamble is `\0asm`, a 16-bit
/// version and a 16-bit layer, little-endian: layer 0 is a core module, layer 1 a component.
/// Source: WebAssembly core spec §5.5.16; component model `Binary.md`.
///
/// # Errors
/// A clause that continues "entrypoint X …": what it is, and what to do.
pub fn sniff(head: &[u8]) -> Result<Kind, &'static str> {
    const ELF_OSABI_WASMTIME: u8 = 200;
    match head {
        [] => Err("is an empty file; the build that made the image wrote no module"),
        [b'\0', b'a', b's', b'm', version @ ..] => match version {
            [1, 0, 0, 0, ..] => Ok(Kind::Module),
            [0x0d, 0, 1, 0, ..] => Ok(Kind::Component),
            [_, _, _, _, ..] => Err("is WebAssembly of an unknown version; rebuild it with a current toolchain"),
            _ => Err("is a truncated WebAssembly file; build or copy it again"),
        },
        [0x7f, b'E', b'L', b'F', _, _, _, ELF_OSABI_WASMTIME, ..] => Err(
            "is precompiled native code (.cwasm), which is never loaded from an image; put the .wasm it was made from \
             into the image",
        ),
        [0x7f, b'E', b'L', b'F', ..] => {
            Err("is a native program, not WebAssembly; run the image with the runc runtime")
        }
        [b'#', b'!', ..] => Err("is a script, not WebAssembly; set ENTRYPOINT to the .wasm file itself"),
        [b'(' | b';', ..] => Err(
            "is WebAssembly text (.wat), not a binary; convert it with `wasm-tools parse` and put the .wasm into the image",
        ),
        _ => Err("is not a WebAssembly binary; it does not start with \\0asm"),
    }
}

/// A file that has WebAssembly's magic bytes: an entrypoint that was found in a rootfs, or a layer.
#[derive(Debug)]
pub struct Module {
    /// Where the guest would see it, for messages and `argv[0]`-less engines.
    pub path: PathBuf,
    /// What the bytes claim to be; whether they are valid only an engine can tell.
    pub kind: Kind,
    /// Open for reading, at the start.
    pub file: File,
    /// Bytes.
    pub len: u64,
    /// SHA-256 of the bytes, where somebody trusted has compared it.
    digest: Option<String>,
}

impl Module {
    /// Finds the entrypoint `arg` in `rootfs` without ever leaving it, whatever links the image holds.
    ///
    /// A path with a slash is taken as it is (relative to `cwd`), a bare name is looked for in the folders of `path_env`
    /// and then in `cwd`, as images made for other WebAssembly shims expect.
    ///
    /// # Errors
    /// It is missing, not a regular file, or not WebAssembly.
    pub fn find(rootfs: &Path, arg: &str, cwd: &Path, path_env: Option<&str>) -> Result<Self, Error> {
        let root = pathrs::Root::open(rootfs).map_err(|source| Error::OpenEntrypoint {
            path: arg.to_owned(),
            source: io::Error::other(source.to_string()),
        })?;
        for candidate in candidates(arg, cwd, path_env) {
            match root.resolve(&candidate) {
                Ok(handle) => return Self::open(handle, arg, candidate),
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    return Err(Error::OpenEntrypoint { path: arg.to_owned(), source: errno_of(&error) });
                }
            }
        }
        Err(Error::EntrypointMissing { path: arg.to_owned() })
    }

    /// Takes a file that is no entrypoint, under the name that the guest knows it by. `digest` is the SHA-256 of its
    /// bytes, 64 hex digits, where somebody trusted has compared it.
    ///
    /// # Errors
    /// It can't be read, or is not WebAssembly.
    pub fn of_file(mut file: File, name: &str, digest: Option<String>) -> Result<Self, Error> {
        let failed = |source| Error::OpenEntrypoint { path: name.to_owned(), source };
        let kind = kind_of(&mut file, name)?;
        let len = file.metadata().map_err(failed)?.len();
        Ok(Self { path: PathBuf::from(name), kind, file, len, digest })
    }

    fn open(handle: pathrs::Handle, arg: &str, path: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::OpenEntrypoint { path: arg.to_owned(), source };
        // Looked at through the O_PATH handle first: opening a device or a FIFO for reading has effects.
        let path_only = File::from(OwnedFd::from(handle));
        let metadata = path_only.metadata().map_err(failed)?;
        let file_type = metadata.file_type();
        if file_type.is_dir() {
            return Err(Error::EntrypointIsDirectory { path: arg.to_owned() });
        }
        if !file_type.is_file() {
            debug_assert!(
                file_type.is_char_device()
                    || file_type.is_block_device()
                    || file_type.is_fifo()
                    || file_type.is_socket()
            );
            return Err(Error::EntrypointNotRegular { path: arg.to_owned() });
        }
        let mut file = pathrs::Handle::from_fd(path_only)
            .reopen(pathrs::flags::OpenFlags::O_RDONLY)
            .map_err(|error| failed(errno_of(&error)))?;
        let kind = kind_of(&mut file, arg)?;
        Ok(Self { path, kind, file, len: metadata.len(), digest: None })
    }

    /// SHA-256 of the bytes, as 64 hex digits. Leaves the file at the start.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn digest(&mut self) -> io::Result<String> {
        if let Some(digest) = &self.digest {
            return Ok(digest.clone());
        }
        let digest = digest_of(&mut self.file, self.len)?;
        self.digest = Some(digest.clone());
        Ok(digest)
    }
}

/// The files that an entrypoint may mean, as [`Module::find`] tells.
pub(crate) fn candidates(arg: &str, cwd: &Path, path_env: Option<&str>) -> Vec<PathBuf> {
    if arg.contains('/') {
        return vec![cwd.join(arg)];
    }
    let folders = path_env.unwrap_or_default().split(':').filter(|f| f.starts_with('/'));
    folders.map(|f| Path::new(f).join(arg)).chain([cwd.join(arg)]).collect()
}

/// SHA-256 of a file's first `len` bytes, as 64 hex digits. It may grow meanwhile, faster than it is read. Leaves the file at the
/// start.
pub(crate) fn digest_of(file: &mut File, len: u64) -> io::Result<String> {
    file.rewind()?;
    let mut first = Read::by_ref(file).take(len);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match first.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    file.rewind()?;
    Ok(hex(&hasher.finalize()))
}

/// By the first bytes. Leaves the file at the start.
fn kind_of(file: &mut File, name: &str) -> Result<Kind, Error> {
    let failed = |source| Error::OpenEntrypoint { path: name.to_owned(), source };
    let mut head = Vec::with_capacity(16);
    Read::by_ref(file).take(16).read_to_end(&mut head).map_err(failed)?;
    file.rewind().map_err(failed)?;
    sniff(&head).map_err(|what| Error::NotWasm { path: name.to_owned(), what })
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn is_missing(error: &pathrs::error::Error) -> bool {
    matches!(errno_of(error).kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn errno_of(error: &pathrs::error::Error) -> io::Error {
    match error.kind() {
        pathrs::error::ErrorKind::OsError(Some(errno)) => io::Error::from_raw_os_error(errno),
        _ => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sniffs_by_bytes() {
        let table: &[(&[u8], Result<Kind, &str>)] = &[
            (b"\0asm\x01\0\0\0", Ok(Kind::Module)),
            (b"\0asm\x0d\0\x01\0", Ok(Kind::Component)),
            (b"\0asm\x0a\0\x01\0", Err("unknown version")),
            (b"\0asm\x01", Err("truncated")),
            (b"", Err("empty")),
            (b"(module)", Err(".wat")),
            (b";; hi\n(module)", Err(".wat")),
            (b"\x7fELF\x02\x01\x01\xc8", Err(".cwasm")),
            (b"\x7fELF\x02\x01\x01\0", Err("native program")),
            (b"#!/bin/sh", Err("script")),
            (b"hello", Err("not a WebAssembly binary")),
        ];
        for (head, expected) in table {
            match (sniff(head), expected) {
                (Ok(got), Ok(want)) => assert_eq!(got, *want, "{head:?}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{head:?}: {got}"),
                (got, want) => panic!("{head:?}: got {got:?}, want {want:?}"),
            }
        }
    }

    #[test]
    fn an_entrypoint_never_leaves_the_rootfs() {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        std::fs::create_dir_all(rootfs.join("bin/dir")).unwrap();
        std::fs::write(folder.path().join("outside.wasm"), b"\0asm\x01\0\0\0").unwrap();
        std::fs::write(rootfs.join("bin/in.wasm"), b"\0asm\x01\0\0\0").unwrap();
        symlink("../../outside.wasm", rootfs.join("relative")).unwrap();
        symlink(folder.path().join("outside.wasm"), rootfs.join("absolute")).unwrap();
        symlink("/bin/in.wasm", rootfs.join("rooted")).unwrap();
        let find = |arg: &str| Module::find(&rootfs, arg, Path::new("/"), Some("/usr/bin:/bin"));
        for arg in ["in.wasm", "/bin/in.wasm", "bin/in.wasm", "/rooted", "/../../bin/in.wasm"] {
            assert_eq!(find(arg).unwrap().kind, Kind::Module, "{arg}");
        }
        for arg in ["/relative", "/absolute", "/nope", "nope", "/bin/in.wasm/x"] {
            assert!(matches!(find(arg), Err(Error::EntrypointMissing { .. })), "{arg}: {:?}", find(arg));
        }
        assert!(matches!(find("/bin/dir"), Err(Error::EntrypointIsDirectory { .. })));
        nix::unistd::mkfifo(&rootfs.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(find("/fifo"), Err(Error::EntrypointNotRegular { .. })));
    }
}
