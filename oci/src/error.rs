use std::{io, path::PathBuf};

/// What can be wrong with a bundle, a module or the cache. Each message names the thing and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `config.json` can't be read or isn't a runtime spec.
    #[error("read runtime spec {path}: {source}")]
    ReadSpec {
        /// The bundle's `config.json`.
        path: PathBuf,
        /// What `oci-spec` says.
        source: oci_spec::OciSpecError,
    },
    /// The spec lacks a part without which nothing can run.
    #[error("runtime spec has no {0}; it was not made for a Linux container")]
    SpecLacks(&'static str),
    /// The spec asks for what a WebAssembly guest can't be given.
    #[error("{what} can't be given to a WebAssembly guest: {why}")]
    Refused {
        /// The request, as the user would name it.
        what: String,
        /// The reason, and what to do instead.
        why: String,
    },
    /// The entrypoint isn't there.
    #[error(
        "entrypoint {path:?}: no such file or directory in the image; set ENTRYPOINT to the path of the .wasm file"
    )]
    EntrypointMissing {
        /// As the spec names it.
        path: String,
    },
    /// The entrypoint is there, but is not a file.
    #[error("entrypoint {path:?} is a directory; set ENTRYPOINT to the path of the .wasm file in it")]
    EntrypointIsDirectory {
        /// As the spec names it.
        path: String,
    },
    /// The entrypoint is a device, a FIFO or a socket.
    #[error("entrypoint {path:?} is not a regular file")]
    EntrypointNotRegular {
        /// As the spec names it.
        path: String,
    },
    /// The entrypoint can't be opened or read.
    #[error("open entrypoint {path:?}: {source}")]
    OpenEntrypoint {
        /// As the spec names it.
        path: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// The entrypoint's bytes are not a binary module or component.
    #[error("entrypoint {path:?} {what}")]
    NotWasm {
        /// As the spec names it.
        path: String,
        /// What it is instead, and what to do.
        what: &'static str,
    },
    /// The cache folder could be written by others, who could then place native code in it.
    #[error(
        "refusing cache folder {path}: {why}; native code is loaded from it, so it must belong to the user that runs \
         the shim and be writable by nobody else (chown root:root and chmod 0700, or remove it)"
    )]
    CacheUntrusted {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file operation in the cache failed.
    #[error("{operation} {path}: {source}")]
    Cache {
        /// Such as `create cache folder`.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}
