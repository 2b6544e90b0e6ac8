use std::{io, num::NonZeroU32, path::PathBuf, time::Duration};

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
    /// An annotation with a value that isn't known.
    #[error("annotation {name}={value:?} is not understood: it takes {takes}")]
    Annotation {
        /// With its prefix.
        name: String,
        /// As it was given; of a long one, its start.
        value: String,
        /// The values that there are.
        takes: String,
    },
    /// An annotation of Lighter's that there isn't.
    #[error("there is no annotation {name}; did you mean {nearest}?")]
    UnknownAnnotation {
        /// With its prefix.
        name: String,
        /// With its prefix.
        nearest: String,
    },
    /// A configuration file can't be read.
    #[error("read configuration {path}: {source}")]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A configuration holds what is no setting.
    #[error("configuration {origin}: {why}")]
    Config {
        /// A file's path, or what to call it where it came without one.
        origin: String,
        /// What is wrong with it, and what there is.
        why: String,
    },
    /// Somebody asks for an engine that there isn't.
    #[error("{by} asks for the engine {name:?}, which there is not; use {engines}")]
    UnknownEngine {
        /// As it was given.
        name: String,
        /// Who asks for it.
        by: String,
        /// Those that there are.
        engines: String,
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
    /// Others kept all compilers busy.
    #[error(
        "waited {} s for one of the {most} compilers that may be at work at once; try again later, have images compiled \
         before their containers come (lighter compile IMAGE), or set more `compilers` in {}",
        waited.as_secs(), crate::Config::NODE
    )]
    CompilersBusy {
        /// Compilers.
        most: NonZeroU32,
        /// For as long as one may be waited for.
        waited: Duration,
    },
    /// A blob's length is not what its descriptor says.
    #[error("blob {digest} has {found} bytes instead of {expected}; pull the image again")]
    BlobSize {
        /// With its algorithm.
        digest: String,
        /// Bytes.
        expected: u64,
        /// Bytes.
        found: u64,
    },
    /// A blob's bytes are not what its digest says.
    #[error("blob {digest} is damaged: its bytes have the digest {found} instead of that; pull the image again")]
    BlobDigest {
        /// With its algorithm.
        digest: String,
        /// With its algorithm.
        found: String,
    },
    /// A digest that isn't SHA-256.
    #[error("digest {digest} is not a SHA-256; build the image with sha256 digests")]
    DigestAlgorithm {
        /// With its algorithm.
        digest: String,
    },
    /// A blob that nobody pulled.
    #[error("{what} {digest} is missing; pull the image again, for a WebAssembly platform such as wasi/wasm")]
    MissingBlob {
        /// Such as `manifest`.
        what: &'static str,
        /// With its algorithm.
        digest: String,
    },
    /// A document that isn't one.
    #[error("{what} {digest} is not valid: {source}; build and push the image again")]
    Document {
        /// Such as `manifest`.
        what: &'static str,
        /// With its algorithm.
        digest: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A document that claims to be two things.
    #[error("manifest {digest} {what}; refusing it")]
    Ambiguous {
        /// A clause that continues the sentence.
        what: &'static str,
        /// With its algorithm.
        digest: String,
    },
    /// A document of more bytes than one may have.
    #[error("{digest} has {size} bytes, more than the {most} that a manifest or a config may have")]
    TooLarge {
        /// With its algorithm.
        digest: String,
        /// Bytes.
        size: u64,
        /// Bytes.
        most: u64,
    },
    /// Indexes within indexes.
    #[error("index {digest} is nested deeper than {most} levels; refusing it")]
    TooDeep {
        /// With its algorithm.
        digest: String,
        /// Levels.
        most: usize,
    },
    /// An index as no builder makes them.
    #[error("index {digest} leads to more than {most} manifests; refusing it")]
    TooMany {
        /// With its algorithm.
        digest: String,
        /// Manifests.
        most: usize,
    },
    /// A media type that isn't known, or not in this place.
    #[error(
        "{what} {digest} has the media type {media_type}, which Lighter does not run; `lighter build` makes images of \
         the formats that it does"
    )]
    MediaType {
        /// Such as `layer`.
        what: &'static str,
        /// With its algorithm.
        digest: String,
        /// As the descriptor says.
        media_type: String,
    },
    /// Two modules in one image.
    #[error(
        "manifest {manifest} has several WebAssembly layers ({first} and {second}), so it does not say which one to run; \
         build an image with one"
    )]
    SeveralModules {
        /// With its algorithm.
        manifest: String,
        /// With its algorithm.
        first: String,
        /// With its algorithm.
        second: String,
    },
    /// An artifact without a module.
    #[error("manifest {manifest} has no module: none of its layers is WebAssembly")]
    NoModule {
        /// With its algorithm.
        manifest: String,
    },
    /// Nothing in an index is for this host.
    #[error(
        "index {digest} has no manifest for WebAssembly (wasi/wasm) nor for this host; it has {}",
        if platforms.is_empty() { "none at all" } else { platforms }
    )]
    NoPlatform {
        /// With its algorithm.
        digest: String,
        /// Those it has, with commas between.
        platforms: String,
    },
    /// A module that would fill the cache alone.
    #[error("module {digest} has {size} bytes, more than the {most} that the cache may hold")]
    ModuleTooLarge {
        /// With its algorithm.
        digest: String,
        /// Bytes.
        size: u64,
        /// Bytes.
        most: u64,
    },
}

impl Error {
    /// Whether it says that the entrypoint is not a module in the root filesystem, so that it may be a layer instead.
    #[must_use]
    pub fn is_about_entrypoint(&self) -> bool {
        matches!(
            self,
            Self::EntrypointMissing { .. }
                | Self::EntrypointIsDirectory { .. }
                | Self::EntrypointNotRegular { .. }
                | Self::NotWasm { .. }
        )
    }
}
