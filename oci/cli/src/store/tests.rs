//! The store as its users see it.

use std::os::unix::fs::FileExt;

use lighter_oci::image::Content;
use oci_spec::image::{Digest, MediaType};
use serde_json::json;

use super::{gc::Gc, *};
use crate::reference::Reference;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(&folder.path().join("store")).unwrap();
    (folder, store)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Descriptor {
    let (digest, size) = store.put(bytes).unwrap();
    Descriptor::new(MediaType::from(media_type), size, digest.parse::<Digest>().unwrap())
}

/// An image of one layer, and what it consists of.
fn image(store: &Store, layer: &[u8]) -> (Descriptor, Vec<Descriptor>) {
    let config = put(store, "application/vnd.wasm.config.v0+json", b"{}");
    let layer = put(store, "application/wasm", layer);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    (put(store, MANIFEST, manifest.to_string().as_bytes()), vec![config, layer])
}

fn index(store: &Store, entries: &[&Descriptor]) -> Descriptor {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
    put(store, INDEX, index.to_string().as_bytes())
}

fn files(store: &Store, folder: &str) -> usize {
    fs::read_dir(store.root().join(folder)).unwrap().count()
}

#[test]
fn a_blob_appears_whole_or_not_at_all() {
    let (_folder, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"some").unwrap();
    assert_eq!((files(&store, BLOBS), files(&store, INGEST)), (0, 0));
    writer.write_all(b" bytes").unwrap();
    let (digest, size) = writer.finish(None).unwrap();
    assert_eq!(size, 10);
    assert_eq!((files(&store, BLOBS), files(&store, INGEST)), (1, 0));
    let mut found = String::new();
    store.open_blob(&digest).unwrap().unwrap().read_to_string(&mut found).unwrap();
    assert_eq!(found, "some bytes");

    let expected = Descriptor::new(MediaType::from("x"), 10, digest.parse::<Digest>().unwrap());
    for (bytes, says) in [(&b"some bytez"[..], "damaged or forged"), (b"some", "4 bytes instead of 10")] {
        let mut writer = store.writer().unwrap();
        writer.write_all(bytes).unwrap();
        let error = writer.finish(Some(&expected)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    drop(store.writer().unwrap());
    assert_eq!((files(&store, BLOBS), files(&store, INGEST)), (1, 0));
}

#[test]
fn digests_that_are_no_file_names_are_refused() {
    let (_folder, store) = store();
    for digest in ["", "sha256:", "sha256:../../../../etc/passwd", "sha512:00", &format!("sha256:{}", "G".repeat(64))] {
        assert!(store.open_blob(digest).is_err(), "{digest}");
    }
    assert!(store.open_blob(&format!("sha256:{}", "0".repeat(64))).unwrap().is_none());
}

#[test]
fn names_are_whole_and_move() {
    let (_folder, store) = store();
    let ((one, _), (two, _)) = (image(&store, b"1"), image(&store, b"2"));
    store.tag(&reference("hello"), one.clone()).unwrap();
    store.tag(&reference("docker.io/library/hello:2"), two.clone()).unwrap();
    let digest = |name: &str| store.resolve(&reference(name)).unwrap().map(|root| root.digest().clone());
    assert_eq!(digest("hello:latest").as_ref(), Some(one.digest()));
    assert_eq!(digest("hello:2").as_ref(), Some(two.digest()));
    assert_eq!(digest("hello:3"), None);
    assert_eq!(digest(&format!("hello@{}", two.digest())).as_ref(), Some(two.digest()));
    assert_eq!(digest(&format!("other@{}", two.digest())), None);
    let names: Vec<String> = store.list().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["docker.io/library/hello:2", "docker.io/library/hello:latest"]);

    // A digest names one image, whatever somebody says.
    let pinned = format!("hello:2@{}", one.digest());
    assert!(store.tag(&reference(&pinned), two.clone()).unwrap_err().to_string().contains("can't be the name of"));
    let forged = fs::read_to_string(store.root().join(INDEX_FILE)).unwrap().replace("hello:2", &pinned);
    fs::write(store.root().join(INDEX_FILE), forged).unwrap();
    assert_eq!(digest(&pinned).as_ref(), Some(one.digest()));
    store.tag(&reference("hello:2"), two.clone()).unwrap();
    assert!(store.untag(&reference(&pinned)).unwrap());

    store.tag(&reference("hello"), two.clone()).unwrap();
    assert_eq!(digest("hello").as_ref(), Some(two.digest()));
    assert!(store.untag(&reference("hello")).unwrap());
    assert!(!store.untag(&reference("hello")).unwrap());
    assert_eq!(store.list().unwrap().len(), 1);
    let absent =
        Descriptor::new(MediaType::ImageManifest, 1, format!("sha256:{}", "0".repeat(64)).parse::<Digest>().unwrap());
    assert!(store.tag(&reference("hello"), absent).unwrap_err().to_string().contains("not in the store"));
}

#[test]
fn many_processes_can_tag_at_once() {
    let (_folder, store) = store();
    let (root, _) = image(&store, b"1");
    std::thread::scope(|scope| {
        for name in 0..20 {
            let (root, path) = (root.clone(), store.root().to_owned());
            scope.spawn(move || Store::at(&path).unwrap().tag(&reference(&format!("hello:{name}")), root).unwrap());
        }
    });
    assert_eq!(store.list().unwrap().len(), 20);
    assert_eq!(files(&store, INGEST), 0);
}

#[test]
fn the_collector_removes_what_no_name_leads_to() {
    let (_folder, store) = store();
    let ((one, _), (two, _), (three, parts)) = (image(&store, b"1"), image(&store, b"2"), image(&store, b"3"));
    let nested = index(&store, &[&three]);
    let root = index(&store, &[&one, &nested]);
    store.tag(&reference("hello"), root).unwrap();
    fs::write(store.root().join(INGEST).join(".lighter-killed"), "1234").unwrap();
    // Gone: the second manifest and its layer, and the leftover.
    let removed = store.gc(|| panic!("nobody is in the way")).unwrap();
    assert_eq!(removed, Gc { blobs: 3, bytes: two.size() + 1 + 4 });
    assert!(store.has(&three).unwrap() && store.has(&parts[0]).unwrap() && store.has(&parts[1]).unwrap());
    assert!(!store.has(&two).unwrap());
    assert_eq!(store.gc(|| ()).unwrap(), Gc::default());
    store.untag(&reference("hello")).unwrap();
    store.gc(|| ()).unwrap();
    assert_eq!((files(&store, BLOBS), files(&store, INGEST)), (0, 0));
}

#[test]
fn the_collector_waits_for_who_makes_an_image() {
    let (_folder, store) = store();
    let other = Store::at(store.root()).unwrap();
    let (root, _) = image(&other, b"1");
    let (waits, waited) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| store.gc(|| waits.send(()).unwrap()).unwrap());
        waited.recv().unwrap();
        other.tag(&reference("hello"), root.clone()).unwrap();
        other.release();
        assert_eq!(collector.join().unwrap(), Gc::default());
    });
    assert!(store.has(&root).unwrap());
}

#[test]
fn the_collector_removes_nothing_where_an_image_is_damaged() {
    let (_folder, store) = store();
    let (root, _) = image(&store, b"1");
    image(&store, b"2");
    store.tag(&reference("hello"), root.clone()).unwrap();
    let path = store.blob_path(root.digest().as_ref()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().write_at(b"x", 3).unwrap();
    let before = files(&store, BLOBS);
    assert!(format!("{:#}", store.gc(|| ()).unwrap_err()).contains("is damaged"));
    assert_eq!(files(&store, BLOBS), before);
}

#[test]
fn a_graph_lists_children_first_and_what_is_absent() {
    let (_folder, store) = store();
    let ((one, mut parts), (two, _)) = (image(&store, b"1"), image(&store, b"2"));
    let absent: Descriptor = serde_json::from_value(json!({
        "mediaType": MANIFEST, "size": 7, "digest": format!("sha256:{}", "a".repeat(64)),
        "platform": {"os": "linux", "architecture": "arm64"}
    }))
    .unwrap();
    let root = index(&store, &[&one, &absent, &two, &one]);
    let graph = store.graph(&root).unwrap();
    assert_eq!(graph.documents, [one, two, root.clone()]);
    parts.push(Descriptor::new(MediaType::from("application/wasm"), 1, graph.blobs[2].digest().clone()));
    assert_eq!(graph.blobs, parts);
    assert_eq!(graph.absent, [absent]);
    let error = graph.require_whole("hello").unwrap_err().to_string();
    assert!(error.contains("linux/arm64") && error.contains("--all-platforms"), "{error}");

    let mut deep = root;
    for _ in 0..5 {
        deep = index(&store, &[&deep]);
    }
    assert!(store.graph(&deep).unwrap_err().to_string().contains("nested too deep"));
}

#[test]
fn where_blobs_came_from_is_remembered_with_the_name() {
    let (_folder, store) = store();
    let (root, parts) = image(&store, b"1");
    store.tag(&reference("r.test/a/one:1"), root.clone()).unwrap();
    for name in ["r.test/a/one:1", "r.test/b/two:1", "r.test/b/two:2", "q.test/c:1"] {
        store.remember_source(&root, &reference(name)).unwrap();
    }
    let from = |registry: &str, except: &str| {
        let sources = store.sources(registry, except).unwrap();
        sources.get(parts[1].digest().as_ref()).map(|from| from.iter().cloned().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(from("r.test", "x").as_deref(), Some("a/one b/two"));
    assert_eq!(from("r.test", "a/one").as_deref(), Some("b/two"));
    assert_eq!(from("q.test", "c"), None);
    assert_eq!(from("docker.io", "x"), None);
    // The record goes where the image goes, by name.
    let copied = store.resolve(&reference("r.test/a/one:1")).unwrap().unwrap();
    store.tag(&reference("r.test/c/three:1"), copied).unwrap();
    store.untag(&reference("r.test/a/one:1")).unwrap();
    assert_eq!(from("r.test", "c/three").as_deref(), Some("a/one b/two"));
}

#[test]
fn a_download_goes_on_where_it_was_interrupted() {
    let (_folder, store) = store();
    let blob = {
        let other = tempfile::tempdir().unwrap();
        put(&Store::at(other.path()).unwrap(), "x", b"hello world")
    };
    let mut partial = store.partial(&blob).unwrap().unwrap();
    partial.write(b"hello ").unwrap();
    assert!(Store::at(store.root()).unwrap().partial(&blob).unwrap().is_none(), "two at once");
    drop(partial);
    assert!(!store.has(&blob).unwrap());
    let mut partial = store.partial(&blob).unwrap().unwrap();
    assert_eq!(partial.len(), 6);
    partial.write(b"world").unwrap();
    assert!(partial.write(b"!").unwrap_err().to_string().contains("more than the 11 bytes"));
    drop(partial);
    assert_eq!(files(&store, INGEST), 0, "too long a download can't be continued");

    let mut partial = store.partial(&blob).unwrap().unwrap();
    partial.write(b"hello earth").unwrap();
    assert!(partial.finish().unwrap_err().to_string().contains("damaged or forged"));
    assert_eq!((files(&store, BLOBS), files(&store, INGEST)), (0, 0));

    let mut partial = store.partial(&blob).unwrap().unwrap();
    partial.write(b"jello ").unwrap();
    partial.restart().unwrap();
    partial.write(b"hello world").unwrap();
    partial.finish().unwrap();
    assert!(store.has(&blob).unwrap());
    assert_eq!(files(&store, INGEST), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn documents_are_verified_and_bounded() {
    let (_folder, store) = store();
    let good = put(&store, MANIFEST, b"{}");
    assert_eq!(store.read(&good).await.unwrap().unwrap(), b"{}");
    let absent =
        Descriptor::new(MediaType::ImageManifest, 2, format!("sha256:{}", "0".repeat(64)).parse::<Digest>().unwrap());
    assert!(store.read(&absent).await.unwrap().is_none());
    let longer = Descriptor::new(MediaType::ImageManifest, 3, good.digest().clone());
    assert!(store.read(&longer).await.is_err());
    fs::write(store.blob_path(good.digest().as_ref()).unwrap(), "[]").unwrap();
    assert!(store.read(&good).await.is_err());
}

#[test]
fn a_layout_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(LAYOUT_FILE), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    let error = format!("{:#}", Store::at(folder.path()).unwrap_err());
    assert!(error.contains("2.0.0"), "{error}");
    fs::write(folder.path().join(LAYOUT_FILE), LAYOUT).unwrap();
    fs::write(folder.path().join(INDEX_FILE), "{").unwrap();
    let error = format!("{:#}", Store::at(folder.path()).unwrap().list().unwrap_err());
    assert!(error.contains("index.json is damaged"), "{error}");
}
