//! Whole images on their way.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use lighter_oci::image::media::WASM_CONFIG;
use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::{Value, json};

use super::*;
use crate::{
    output::Output,
    reference::Reference,
    registry::fake::{Fake, Fault},
    store::{BLOBS, Store},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const WASM: &[u8] = b"\0asm\x01\0\0\0 and so on, for a while";

/// Names and contents of an archive.
type Files<'a> = &'a [(&'a str, &'a [u8])];

fn output() -> Output {
    Output::new(true, true)
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path()).unwrap();
    (folder, store)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Descriptor {
    let (digest, size) = store.put(bytes).unwrap();
    Descriptor::new(MediaType::from(media_type), size, digest.parse::<Digest>().unwrap())
}

fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string().into_bytes()
}

fn artifact(store: &Store, module: &[u8]) -> Descriptor {
    let config = put(store, WASM_CONFIG, br#"{"os":"wasip1","architecture":"wasm"}"#);
    put(store, MANIFEST, &manifest(&config, &[put(store, "application/wasm", module)]))
}

fn rootfs(store: &Store, layers: &[Vec<u8>], entrypoint: &str) -> Descriptor {
    let config = json!({"os": "wasi", "architecture": "wasm", "config": {"Entrypoint": [entrypoint]}});
    let config = put(store, CONFIG, config.to_string().as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| put(store, TAR, layer)).collect();
    put(store, MANIFEST, &manifest(&config, &layers))
}

fn for_platform(image: &Descriptor, platform: &str) -> Value {
    let (os, architecture) = platform.split_once('/').unwrap();
    let mut entry = serde_json::to_value(image).unwrap();
    entry["platform"] = json!({"os": os, "architecture": architecture});
    entry
}

fn index(entries: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes()
}

fn tar_of(entries: Files<'_>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // As it is: the library would refuse `..`.
        let name = path.as_bytes();
        if name.len() <= 100 {
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        } else {
            archive.append_data(&mut header, path, *bytes).unwrap();
        }
    }
    archive.into_inner().unwrap()
}

/// Everything that a store has goes to the fake registry.
fn upload(store: &Store, fake: &Fake, tag: &str, root: &Descriptor) {
    let graph = store.graph(root).unwrap();
    let bytes = |blob: &Descriptor| {
        let mut bytes = Vec::new();
        store.open_blob(blob.digest().as_ref()).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    for blob in &graph.blobs {
        fake.blob("x", &bytes(blob));
    }
    for document in &graph.documents {
        let tag = if document.digest() == root.digest() { tag } else { "other" };
        fake.manifest(tag, document.media_type().as_ref(), &bytes(document));
    }
}

async fn module(store: &Store, root: &Descriptor) -> anyhow::Result<Vec<u8>> {
    let mut module = Vec::new();
    extract_module(store, root, &mut module).await?;
    Ok(module)
}

#[test]
fn what_was_pushed_is_pulled_the_same() {
    Fake::with(async |fake| {
        let (_a, ours) = store();
        let root = artifact(&ours, WASM);
        let name = fake.reference("me/hello:1");
        ours.tag(&name, root.clone()).unwrap();
        let pushed = push(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert_eq!(pushed.digest, root.digest().to_string());
        assert!(pushed.blobs.iter().all(|blob| blob.action == "uploaded"), "{pushed:?}");
        let requests = fake.state.borrow().requests.clone();
        assert_eq!(requests.last().unwrap(), "PUT /v2/me/hello/manifests/1", "the tag comes last");

        let again = push(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert!(again.blobs.iter().all(|blob| blob.action == "exists"), "{again:?}");

        let (_b, theirs) = store();
        let pulled = pull(&theirs, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert_eq!(pulled.digest, pushed.digest);
        assert_eq!(pulled.size, pushed.size);
        assert_eq!(theirs.resolve(&name).unwrap().unwrap().digest(), root.digest());
        assert_eq!(module(&theirs, &pulled.root).await.unwrap(), WASM);
        let again = pull(&theirs, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert!(again.blobs.iter().all(|blob| blob.action == "exists"), "{again:?}");
    });
}

#[test]
fn blobs_of_another_repository_are_mounted() {
    Fake::with(async |fake| {
        let (_folder, store) = store();
        let root = artifact(&store, WASM);
        let (old, new) = (fake.reference("me/old:1"), fake.reference("me/new:1"));
        store.tag(&old, root.clone()).unwrap();
        push(&store, &old, &Platforms::Best, false, &output()).await.unwrap();
        store.tag(&new, store.resolve(&old).unwrap().unwrap()).unwrap();
        // The fake has one set of blobs: the new repository is to have none.
        let there = std::mem::take(&mut fake.state.borrow_mut().blobs);
        fake.state.borrow_mut().elsewhere = there;
        let pushed = push(&store, &new, &Platforms::Best, false, &output()).await.unwrap();
        assert!(pushed.blobs.iter().all(|blob| blob.action == "mounted"), "{pushed:?}");
        assert!(fake.asked("POST").last().unwrap().contains("from=me%2Fold"));
    });
}

#[test]
fn of_an_index_one_platform_is_pulled_unless_all_are_wanted() {
    Fake::with(async |fake| {
        let (_a, theirs) = store();
        let wasi = artifact(&theirs, WASM);
        let linux = rootfs(&theirs, &[tar_of(&[("bin/x", b"elf")])], "/bin/x");
        let nested = put(&theirs, INDEX, &index(&[for_platform(&wasi, "wasip1/wasm")]));
        let entries = [for_platform(&linux, "linux/s390x"), serde_json::to_value(&nested).unwrap()];
        let root = put(&theirs, INDEX, &index(&entries));
        upload(&theirs, &fake, "1", &root);
        let name = fake.reference("me/hello:1");

        let (_b, ours) = store();
        let pulled = pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert_eq!(pulled.digest, root.digest().to_string(), "as the registry knows it");
        assert_eq!(module(&ours, &pulled.root).await.unwrap(), WASM);
        let graph = ours.graph(&pulled.root).unwrap();
        assert_eq!(graph.absent_platforms(), "linux/s390x");
        let error = push(&ours, &name, &Platforms::Best, false, &output()).await.unwrap_err().to_string();
        assert!(error.contains("linux/s390x is missing") && error.contains("--all-platforms"), "{error}");
        let wasip1 = Platforms::Named("wasip1/wasm".to_owned());
        let one = push(&ours, &name, &wasip1, false, &output()).await.unwrap();
        assert_eq!(one.digest, wasi.digest().to_string());

        upload(&theirs, &fake, "1", &root);
        let named = Platforms::Named("linux/s390x".to_owned());
        pull(&ours, &name, &named, false, &output()).await.unwrap();
        assert!(ours.graph(&root).unwrap().absent.is_empty(), "both are here now");
        let error = pull(&ours, &name, &Platforms::Named("a/b".to_owned()), false, &output()).await.unwrap_err();
        assert!(format!("{error:#}").contains("it is for linux/s390x, wasip1/wasm"), "{error:#}");

        let (_c, whole) = store();
        pull(&whole, &name, &Platforms::All, false, &output()).await.unwrap();
        push(&whole, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert_eq!(fake.state.borrow().manifests["1"].0, INDEX);
    });
}

#[test]
fn an_interrupted_pull_goes_on_and_names_nothing_before_it_is_whole() {
    Fake::with(async |fake| {
        let (_a, theirs) = store();
        let root = artifact(&theirs, WASM);
        upload(&theirs, &fake, "1", &root);
        let name = fake.reference("me/hello:1");
        let layer = theirs.graph(&root).unwrap().blobs[1].digest().to_string();
        let layer: &'static str = Box::leak(format!("GET /v2/me/hello/blobs/{layer}").into_boxed_str());
        fake.fault(layer, Fault::Cut(9));
        for _ in 0..4 {
            fake.fault(layer, Fault::Answer("HTTP/1.1 500 Oops\r\n\r\n"));
        }
        let (folder, ours) = store();
        let error = pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap_err().to_string();
        assert!(error.contains("500") && error.contains(&fake.host), "{error}");
        assert!(ours.list().unwrap().is_empty());
        drop(ours);

        // Another process.
        let ours = Store::at(folder.path()).unwrap();
        let pulled = pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert_eq!(module(&ours, &pulled.root).await.unwrap(), WASM);
        assert!(fake.asked(layer).last().unwrap().ends_with("bytes=9-"));
    });
}

#[test]
fn a_wrong_beginning_is_pulled_anew_and_forged_bytes_are_refused() {
    Fake::with(async |fake| {
        let (_a, theirs) = store();
        let root = artifact(&theirs, WASM);
        upload(&theirs, &fake, "1", &root);
        let name = fake.reference("me/hello:1");
        let layer = theirs.graph(&root).unwrap().blobs[1].clone();
        let (_b, ours) = store();
        ours.partial(&layer).unwrap().unwrap().write(b"something else").unwrap();
        let pulled = pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert_eq!(module(&ours, &pulled.root).await.unwrap(), WASM);

        let (_c, ours) = store();
        fake.fault("GET /v2/me/hello/blobs/", Fault::Damage);
        let error = pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap_err().to_string();
        assert!(error.contains("damaged or forged"), "{error}");
        assert!(ours.list().unwrap().is_empty());
    });
}

#[test]
fn what_was_damaged_in_the_store_is_pulled_again() {
    Fake::with(async |fake| {
        let (_a, theirs) = store();
        let root = artifact(&theirs, WASM);
        upload(&theirs, &fake, "1", &root);
        let (_b, ours) = store();
        let name = fake.reference("me/hello:1");
        pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        let graph = ours.graph(&root).unwrap();
        for blob in graph.documents.iter().chain(&graph.blobs) {
            let path = ours.blob_path(blob.digest().as_ref()).unwrap();
            std::fs::write(path, vec![b'x'; usize::try_from(blob.size()).unwrap()]).unwrap();
        }
        assert!(module(&ours, &root).await.is_err());
        let pulled = pull(&ours, &name, &Platforms::Best, false, &output()).await.unwrap();
        assert!(pulled.blobs.iter().all(|blob| blob.action == "pulled"), "{pulled:?}");
        assert_eq!(module(&ours, &root).await.unwrap(), WASM);
    });
}

#[test]
fn a_registry_without_artifacts_is_told_of_another_format() {
    Fake::with(async |fake| {
        let (_folder, store) = store();
        let name = fake.reference("me/hello:1");
        let refuses = "HTTP/1.1 400 Bad\r\n\r\n{\"errors\":[{\"code\":\"MANIFEST_INVALID\",\"message\":\"config\"}]}";
        for (root, says) in [
            (artifact(&store, WASM), Some("lighter build --format image")),
            (rootfs(&store, &[tar_of(&[("a.wasm", WASM)])], "/a.wasm"), None),
        ] {
            store.tag(&name, root).unwrap();
            fake.fault("PUT /v2/me/hello/manifests/", Fault::Answer(refuses));
            let error = push(&store, &name, &Platforms::Best, false, &output()).await.unwrap_err().to_string();
            assert!(error.contains("MANIFEST_INVALID"), "{error}");
            assert_eq!(error.contains("--format"), says.is_some(), "{error}");
            assert!(says.is_none_or(|says| error.contains(says)), "{error}");
        }
    });
}

#[test]
fn push_refuses_before_it_asks_the_registry() {
    Fake::with(async |fake| {
        let (_folder, store) = store();
        let name = fake.reference("me/hello:1");
        let error = push(&store, &name, &Platforms::Best, false, &output()).await.unwrap_err().to_string();
        assert!(error.contains("no image"), "{error}");
        let root = artifact(&store, WASM);
        store.tag(&name, root.clone()).unwrap();
        let layer = store.graph(&root).unwrap().blobs[1].clone();
        fs::remove_file(store.root().join(BLOBS).join(layer.digest().digest())).unwrap();
        let error = push(&store, &name, &Platforms::Best, false, &output()).await.unwrap_err().to_string();
        assert!(error.contains(layer.digest().as_ref()) && error.contains("missing"), "{error}");
        assert!(fake.state.borrow().requests.is_empty());
    });
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_saved_is_loaded_the_same_and_twice_the_same_bytes() {
    let (_a, ours) = store();
    let names = [reference("me/hello:1"), reference("r.test/tar:2")];
    ours.tag(&names[0], artifact(&ours, WASM)).unwrap();
    ours.tag(&names[1], rootfs(&ours, &[tar_of(&[("a.wasm", WASM)])], "/a.wasm")).unwrap();
    let mut archive = Vec::new();
    save(&ours, &names, &Platforms::Best, &mut archive).await.unwrap();
    for _ in 0..10 {
        let mut again = Vec::new();
        save(&ours, &names, &Platforms::Best, &mut again).await.unwrap();
        assert!(archive == again);
    }
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for archive in [&archive, &gzip, &zstd] {
        let (_b, theirs) = store();
        let loaded = load(&theirs, &archive[..], None).unwrap();
        assert_eq!(loaded.len(), 2);
        for name in &names {
            let root = theirs.resolve(name).unwrap().unwrap();
            assert_eq!(root.digest(), ours.resolve(name).unwrap().unwrap().digest());
            assert_eq!(module(&theirs, &root).await.unwrap(), WASM);
        }
    }
    // The layout's folder itself, as other tools write it.
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(&archive[..]).unpack(folder.path()).unwrap();
    let (_c, theirs) = store();
    assert_eq!(load_path(&theirs, folder.path(), None).unwrap().len(), 2);
    // What Docker's own store reads names the tar image alone.
    let docker: Value = serde_json::from_slice(&fs::read(folder.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(docker.as_array().unwrap().len(), 1);
    assert_eq!(docker[0]["RepoTags"], json!(["r.test/tar:2"]));
    assert!(folder.path().join(docker[0]["Layers"][0].as_str().unwrap()).is_file());
}

#[test]
fn hostile_archives_are_refused() {
    let layout: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let nothing: (&str, &[u8]) = ("index.json", br#"{"schemaVersion":2,"manifests":[]}"#);
    let hex = "0".repeat(64);
    let blob = format!("blobs/sha256/{hex}");
    let entry = |name: Option<&str>| {
        let mut entry = json!({"mediaType": MANIFEST, "size": 2, "digest": format!("sha256:{hex}")});
        if let Some(name) = name {
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        json!({"schemaVersion": 2, "manifests": [entry]}).to_string()
    };
    let (unnamed, named) = (entry(None), entry(Some("me/hello:1")));
    let large = vec![b' '; 5 << 20];
    let table: [(Files<'_>, &str); 10] = [
        (&[], "no OCI image layout"),
        (&[("a", b"")], "no OCI image layout"),
        (&[("manifest.json", b"[]")], "docker save"),
        (&[("oci-layout", br#"{"imageLayoutVersion":"9"}"#), nothing], "\"9\" is not known"),
        (&[layout, nothing], "lists no image"),
        (&[layout, ("index.json", &large)], "index.json has more than"),
        (&[layout, (&blob, b"{}"), nothing], "not the ones that were named"),
        (&[layout, ("blobs/sha256/../../../etc/x", b"{}"), nothing], "leads out of the archive"),
        (&[layout, ("index.json", unnamed.as_bytes())], "give it one with --tag"),
        (&[layout, ("index.json", named.as_bytes())], "is not in the store"),
    ];
    for (entries, says) in table {
        let (folder, store) = store();
        let error = format!("{:#}", load(&store, &tar_of(entries)[..], None).unwrap_err());
        assert!(error.contains(says), "{says:?}: {error}");
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path().join("ingest")).unwrap().count(), 0);
    }
    let (folder, store) = store();
    assert!(load(&store, &b""[..], None).unwrap_err().to_string().contains("empty"));
    assert!(load(&store, &b"no archive at all, but long"[..], None).is_err());
    let link = folder.path().join("layout");
    fs::create_dir_all(link.join(BLOBS)).unwrap();
    fs::write(link.join("oci-layout"), layout.1).unwrap();
    fs::write(link.join("index.json"), &named).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", link.join(&blob)).unwrap();
    assert!(load_path(&store, &link, None).is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn the_module_of_a_rootfs_image_is_its_entrypoints_file() {
    let (_folder, store) = store();
    let long = format!("{}/a.wasm", "deep/".repeat(40));
    let other = b"\0asm\x01\0\0\0 the newer one".as_slice();
    type Case<'a> = (&'a [Files<'a>], &'a str, Result<&'a [u8], &'a str>);
    let table: &[Case<'_>] = &[
        (&[&[("a.wasm", WASM)]], "/a.wasm", Ok(WASM)),
        (&[&[("./a.wasm", WASM)]], "a.wasm", Ok(WASM)),
        (&[&[(&long, WASM)]], &long, Ok(WASM)),
        (&[&[("a.wasm", WASM)], &[("a.wasm", other)]], "/a.wasm", Ok(other)),
        (&[&[("b/a.wasm", WASM)], &[("b/.wh.a.wasm", b"")]], "/b/a.wasm", Err("is not in the image's layers")),
        (&[&[("b/a.wasm", WASM)], &[(".wh.b", b"")]], "/b/a.wasm", Err("is not in the image's layers")),
        (&[&[("b/a.wasm", WASM)], &[("b/.wh..wh..opq", b"")]], "/b/a.wasm", Err("is not in the image's layers")),
        (&[&[("b/a.wasm", WASM)], &[("b/.wh..wh..opq", b""), ("b/a.wasm", other)]], "/b/a.wasm", Ok(other)),
        (&[&[("a.wasm", b"\x7fELF....")]], "/a.wasm", Err("native program")),
        (&[&[("a.wasm", WASM)]], "/../a.wasm", Err("leads out")),
        (&[&[("a.wasm", WASM)]], "/b.wasm", Err("b.wasm is not in the image's layers")),
    ];
    for (layers, entrypoint, expected) in table {
        let layers: Vec<_> = layers.iter().map(|entries| tar_of(entries)).collect();
        let found = module(&store, &rootfs(&store, &layers, entrypoint)).await;
        match expected {
            Ok(bytes) => assert_eq!(found.unwrap(), *bytes, "{entrypoint}"),
            Err(says) => assert!(format!("{:#}", found.unwrap_err()).contains(says), "{entrypoint} {says}"),
        }
    }
    let damaged = artifact(&store, WASM);
    let layer = store.graph(&damaged).unwrap().blobs[1].clone();
    fs::write(store.root().join(BLOBS).join(layer.digest().digest()), "\0asm\x01\0\0\0 something else").unwrap();
    assert!(module(&store, &damaged).await.unwrap_err().to_string().contains("damaged"));
    assert!(!Path::new("/etc/x").exists());
}
