//! Images made in memory: the same description gives the same bytes.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

use flate2::{Compression, write::GzEncoder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde_json::json;

use crate::cache::hex_digest;

/// Where [`Image::wasm`] puts the module.
pub const ENTRYPOINT: &str = "/app.wasm";

/// The description of an image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    entries: BTreeMap<String, Entry>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    workdir: Option<String>,
    user: Option<String>,
    labels: HashMap<String, String>,
    os: Os,
    architecture: Arch,
    module: Option<Vec<u8>>,
    compressed: bool,
}

#[derive(Clone, Debug)]
enum Entry {
    Folder,
    File { bytes: Vec<u8>, mode: u32 },
    Symlink(String),
    HardLink(String),
}

impl Image {
    /// An empty image for `wasi/wasm`; `name` is a full reference such as `docker.io/library/hello:latest`.
    pub fn new(name: &str) -> Image {
        Image {
            name: name.into(),
            entries: BTreeMap::new(),
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            workdir: None,
            user: None,
            labels: HashMap::new(),
            os: Os::Other("wasi".into()),
            architecture: Arch::Other("wasm".into()),
            module: None,
            compressed: false,
        }
    }

    /// An image whose module is a layer of its own, which no snapshotter unpacks.
    pub fn layer(name: &str, module: impl Into<Vec<u8>>) -> Image {
        Image { module: Some(module.into()), ..Image::new(name).entrypoint(&[ENTRYPOINT]) }
    }

    /// An image that runs one module and holds nothing else.
    pub fn wasm(name: &str, module: impl Into<Vec<u8>>) -> Image {
        Image::new(name).file(ENTRYPOINT, module).entrypoint(&[ENTRYPOINT])
    }

    /// For another platform than `wasi/wasm`, in Go's words.
    pub fn platform(mut self, os: &str, architecture: &str) -> Image {
        self.os = os.into();
        self.architecture = architecture.into();
        self
    }

    /// For the host's platform, as images of native programs are.
    pub fn of_host(self) -> Image {
        self.platform("linux", host_architecture())
    }

    /// A folder.
    pub fn folder(self, path: &str) -> Image {
        self.entry(path, Entry::Folder)
    }

    /// A file that anyone may read and run.
    pub fn file(self, path: &str, bytes: impl Into<Vec<u8>>) -> Image {
        self.file_with_mode(path, bytes, 0o755)
    }

    /// A file of root's with this mode.
    pub fn file_with_mode(self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) -> Image {
        self.entry(path, Entry::File { bytes: bytes.into(), mode })
    }

    /// A symbolic link; `target` goes in as it is.
    pub fn symlink(self, path: &str, target: &str) -> Image {
        self.entry(path, Entry::Symlink(target.into()))
    }

    /// A second name of the file `target`, whose path must sort before this one.
    pub fn hard_link(self, path: &str, target: &str) -> Image {
        self.entry(path, Entry::HardLink(relative(target).into()))
    }

    /// The program and the arguments that a user can't replace by giving others.
    pub fn entrypoint(mut self, words: &[&str]) -> Image {
        self.entrypoint = words.iter().map(ToString::to_string).collect();
        self
    }

    /// The arguments that apply when the user gives none.
    pub fn cmd(mut self, words: &[&str]) -> Image {
        self.cmd = words.iter().map(ToString::to_string).collect();
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Image {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// The folder that the program starts in.
    pub fn workdir(mut self, path: &str) -> Image {
        self.workdir = Some(path.into());
        self
    }

    /// The user that the program runs as: `uid`, `uid:gid` or names.
    pub fn user(mut self, user: &str) -> Image {
        self.user = Some(user.into());
        self
    }

    /// Its layer is compressed with gzip, as registries hold most.
    pub fn compressed(self) -> Image {
        Image { compressed: true, ..self }
    }

    /// A label of the image.
    pub fn label(mut self, name: &str, value: &str) -> Image {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// The same under another name of `docker.io/library`.
    pub fn renamed(mut self, name: &str) -> Image {
        self.name = format!("docker.io/library/{name}:latest");
        self
    }

    /// The same under another full reference.
    pub fn named(self, reference: &str) -> Image {
        Image { name: reference.into(), ..self }
    }

    /// The reference it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An archive for `ctr images import` and `docker load`: an OCI image layout, with the
    /// `manifest.json` that older Dockers read.
    pub fn to_tar(&self) -> Vec<u8> {
        let files = self.files();
        let config = self.config(&hex_digest(&files));
        let (kind, layer) =
            if self.compressed { (MediaType::ImageLayerGzip, gzip(&files)) } else { (MediaType::ImageLayer, files) };
        let layer_descriptor = descriptor(kind, &layer).build().expect("layer's descriptor");
        let config_descriptor = descriptor(MediaType::ImageConfig, &config).build().expect("config's descriptor");
        let module = self.module.as_deref().map(|module| {
            descriptor(MediaType::Other("application/wasm".into()), module).build().expect("module's descriptor")
        });
        let manifest =
            self.manifest(config_descriptor.clone(), [layer_descriptor.clone()].into_iter().chain(module).collect());
        let index = self.index(&manifest);
        let docker_manifest = json!([{
            "Config": blob_path(&config_descriptor),
            "RepoTags": [self.name],
            "Layers": [blob_path(&layer_descriptor)],
        }]);

        let mut archive = Archive::new();
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
        archive.file("index.json", &index, 0o644);
        archive.file("manifest.json", docker_manifest.to_string().as_bytes(), 0o644);
        for blob in [&layer, &config, &manifest].into_iter().chain(&self.module) {
            archive.file(&format!("blobs/sha256/{}", hex_digest(blob)), blob, 0o644);
        }
        archive.finish()
    }

    fn entry(mut self, path: &str, entry: Entry) -> Image {
        let path = relative(path);
        // Folders on the way, as image builders write them.
        for (at, _) in path.match_indices('/') {
            self.entries.entry(path[..at].into()).or_insert(Entry::Folder);
        }
        self.entries.insert(path.into(), entry);
        self
    }

    fn files(&self) -> Vec<u8> {
        let mut archive = Archive::new();
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder => archive.folder(path),
                Entry::File { bytes, mode } => archive.file(path, bytes, *mode),
                Entry::Symlink(target) => archive.link(path, target, tar::EntryType::Symlink),
                Entry::HardLink(target) => archive.link(path, target, tar::EntryType::Link),
            }
        }
        archive.finish()
    }

    fn config(&self, diff_id: &str) -> Vec<u8> {
        let mut process = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .cmd(self.cmd.clone())
            .env(self.env.clone())
            .labels(self.labels.clone());
        if let Some(workdir) = &self.workdir {
            process = process.working_dir(workdir.clone());
        }
        if let Some(user) = &self.user {
            process = process.user(user.clone());
        }
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{diff_id}")]).build();
        let config = ImageConfigurationBuilder::default()
            .os(self.os.clone())
            .architecture(self.architecture.clone())
            .config(process.build().expect("image's process"))
            .rootfs(rootfs.expect("image's layers"))
            .build()
            .expect("image's config");
        serialize(&config)
    }

    fn manifest(&self, config: Descriptor, layers: Vec<Descriptor>) -> Vec<u8> {
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(layers)
            .build();
        serialize(&manifest.expect("image's manifest"))
    }

    fn index(&self, manifest: &[u8]) -> Vec<u8> {
        let platform = PlatformBuilder::default().os(self.os.clone()).architecture(self.architecture.clone()).build();
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let manifest = descriptor(MediaType::ImageManifest, manifest)
            .platform(platform.expect("image's platform"))
            .annotations(HashMap::from([
                ("io.containerd.image.name".to_owned(), self.name.clone()),
                ("org.opencontainers.image.ref.name".to_owned(), tag.to_owned()),
            ]))
            .build();
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests([manifest.expect("manifest's descriptor")])
            .build();
        serialize(&index.expect("image's index"))
    }
}

/// The host's architecture in Go's word, as platforms have it.
#[must_use]
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

fn descriptor(kind: MediaType, blob: &[u8]) -> DescriptorBuilder {
    let digest: Sha256Digest = hex_digest(blob).parse().expect("digest");
    DescriptorBuilder::default().media_type(kind).digest(digest).size(blob.len() as u64)
}

fn blob_path(descriptor: &Descriptor) -> String {
    format!("blobs/sha256/{}", descriptor.digest().digest())
}

/// Without a name or a time.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("write to memory")
}

/// By way of a `Value`, whose maps are sorted: the order of a `HashMap` differs between runs.
fn serialize(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_value(value).expect("image as JSON").to_string().into_bytes()
}

/// A tar archive in memory: root's, of 1970.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) {
        self.append(path, bytes, mode, tar::EntryType::Regular);
    }

    fn folder(&mut self, path: &str) {
        self.append(&format!("{path}/"), &[], 0o755, tar::EntryType::Directory);
    }

    fn link(&mut self, path: &str, target: &str, kind: tar::EntryType) {
        let mut header = header(0, 0o777, kind);
        self.0.append_link(&mut header, path, target).expect("write to memory");
    }

    fn append(&mut self, path: &str, bytes: &[u8], mode: u32, kind: tar::EntryType) {
        let mut header = header(bytes.len() as u64, mode, kind);
        self.0.append_data(&mut header, path, bytes).expect("write to memory");
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("write to memory")
    }
}

fn header(size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_description_gives_the_same_bytes() {
        let labels = ["a", "b", "c", "d", "e"];
        let image = || labels.iter().fold(Image::wasm("docker.io/library/x:y", "module"), |image, l| image.label(l, l));
        assert_eq!(image().to_tar(), image().to_tar());
    }

    #[test]
    fn folders_on_the_way_are_there() {
        let image = Image::new("x:y").file("/a/b/c", "").symlink("/a/l", "/etc");
        assert_eq!(image.entries.keys().collect::<Vec<_>>(), ["a", "a/b", "a/b/c", "a/l"]);
    }
}
