//! Images whose module is a layer of its own: every media type, behind indexes, through containerd and Docker; and what
//! is wrong with such an image, said by name.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use containerd_client::{
    services::v1::{Container, UpdateContainerRequest, containers_client::ContainersClient},
    tonic::{Request, metadata::MetadataValue},
};
use lighter_tests::{Bed, Cmd, Image, Output, PLATFORM, RUNTIME, Suite, guests, on_every_suite};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const FILES: &str = "application/vnd.oci.image.layer.v1.tar";
const WASM: &str = "application/wasm";
const COMPONENT: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const CONTENT: &str = "application/vnd.wasm.content.layer.v1+wasm";
const HELLO: &str = "hello from wasm\n";
const CACHE: &str = "/var/lib/lighter/cache";

on_every_suite! {
    every_media_type_of_a_layer_runs,
    files_beside_the_module_are_the_guests_root,
    an_artifact_runs,
    an_index_gives_the_wasm_of_its_platforms,
    a_start_reads_nothing_of_an_image_whose_module_is_cached,
    a_hundred_first_starts_fetch_once,
    images_never_wait_for_each_other,
    what_is_wrong_is_named,
    what_clients_would_refuse_is_named,
    a_damaged_layer_is_named_and_never_kept,
    a_missing_layer_is_named,
    a_container_without_an_image_is_told_so,
    docker_runs_them_where_it_names_the_image,
}

/// Blobs of an image layout.
#[derive(Default)]
struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    fn put(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let digest = format!("sha256:{}", hex(&Sha256::digest(&bytes)));
        let descriptor = json!({"mediaType": media_type, "size": bytes.len(), "digest": digest});
        self.0.insert(digest, bytes);
        descriptor
    }

    fn put_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.put(media_type, value.to_string())
    }

    /// A manifest with a config and layers that are there.
    fn manifest(&mut self, config: &Value, layers: &[Value]) -> Value {
        self.put_json(MANIFEST, &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}))
    }

    /// An image that containers can be made of, its module a layer of `media_type`.
    fn image(&mut self, platform: &str, layers: &[(&str, Vec<u8>)]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|(media_type, bytes)| self.put(media_type, bytes.clone())).collect();
        let config = self.put_json(CONFIG, &image_config(platform, &layers));
        self.manifest(&config, &layers)
    }

    fn index(&mut self, entries: &[(Value, Option<&str>)]) -> Value {
        let entries: Vec<Value> = entries.iter().map(|(entry, platform)| on(entry, *platform)).collect();
        self.put_json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
    }

    /// An archive of an image layout, for `ctr images import` and `docker load`.
    fn archive(&self, name: &str, root: &Value) -> Vec<u8> {
        let mut root = root.clone();
        root["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [root]}).to_string();
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, bytes).expect("write to memory");
        };
        add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        add("index.json", index.as_bytes());
        for (digest, bytes) in &self.0 {
            add(&format!("blobs/{}", digest.replace(':', "/")), bytes);
        }
        archive.into_inner().expect("write to memory")
    }

    /// Puts it into containerd as `docker.io/library/NAME:latest`, which it returns.
    #[track_caller]
    fn import(&self, bed: &Bed, name: &str, root: &Value) -> String {
        let name = format!("docker.io/library/{name}:latest");
        let import = ["images", "import", "--all-platforms", "--no-unpack", "-"];
        bed.ctr(&import).stdin(self.archive(&name, root)).run().ok();
        name
    }
}

fn on(descriptor: &Value, platform: Option<&str>) -> Value {
    let mut descriptor = descriptor.clone();
    if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
        descriptor["platform"] = json!({"os": os, "architecture": architecture});
    }
    descriptor
}

fn image_config(platform: &str, layers: &[Value]) -> Value {
    let (os, architecture) = platform.split_once('/').expect("a platform");
    let files: Vec<&Value> = layers.iter().filter(|layer| layer["mediaType"] == FILES).map(|l| &l["digest"]).collect();
    json!({"os": os, "architecture": architecture, "config": {"Entrypoint": ["/app.wasm"]},
           "rootfs": {"type": "layers", "diff_ids": files}})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The host's, as image indexes name it.
fn host() -> &'static str {
    if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" }
}

/// `ctr run` on a platform.
fn ctr_run(bed: &Bed, name: &str, id: &str, platform: &str, args: &[&str]) -> Cmd {
    bed.ctr(&[&["run", "--rm", "--runtime", RUNTIME, "--platform", platform, name, id][..], args].concat())
}

fn every_media_type_of_a_layer_runs(suite: Suite) {
    let bed = Bed::get(suite);
    let rows = [
        ("layer-wasm", WASM, guests::p1("hello")),
        ("layer-component", COMPONENT, guests::p2("hello")),
        ("layer-content", CONTENT, guests::p1("hello")),
    ];
    for (name, media_type, guest) in rows {
        let mut layout = Layout::default();
        let root = layout.image(PLATFORM, &[(media_type, guest)]);
        let image = layout.import(bed, name, &on(&root, Some(PLATFORM)));
        // The first start fetches and compiles, the second finds everything.
        for _ in 0..2 {
            assert_eq!(ctr_run(bed, &image, name, PLATFORM, &[]).run().ok().stdout, HELLO, "{media_type}");
            bed.assert_gone(name);
        }
    }
    let mut layout = Layout::default();
    let root = layout.image(PLATFORM, &[(WASM, guests::p1("show"))]);
    let image = layout.import(bed, "layer-args", &on(&root, Some(PLATFORM)));
    let shown = ctr_run(bed, &image, "layer-args", PLATFORM, &["/any/name", "one", "two words"]).run().ok();
    assert!(shown.stdout.contains("arg[0]=/any/name\narg[1]=one\narg[2]=two words\n"), "{shown}");
}

fn files_beside_the_module_are_the_guests_root(suite: Suite) {
    let bed = Bed::get(suite);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    archive.append_data(&mut header, "data/note", &b"text"[..]).expect("write to memory");
    let files = archive.into_inner().expect("write to memory");
    let mut layout = Layout::default();
    let root = layout.image(PLATFORM, &[(FILES, files), (WASM, guests::p1("files"))]);
    let image = layout.import(bed, "layer-files", &on(&root, Some(PLATFORM)));
    let read = ctr_run(bed, &image, "layer-files", PLATFORM, &["/app.wasm", "read", "/data/note"]).run().ok();
    assert_eq!(read.stdout, "text\n");
}

fn an_artifact_runs(suite: Suite) {
    let bed = Bed::get(suite);
    let mut layout = Layout::default();
    let root = artifact(&mut layout, &guests::p2("hello"));
    let image = layout.import(bed, "artifact", &root);
    assert_eq!(run_as_image(bed, &image, "artifact").ok().stdout, HELLO);
}

/// As `lighter build` makes them.
fn artifact(layout: &mut Layout, module: &[u8]) -> Value {
    let module = layout.put(WASM, module);
    let config = json!({"created": "1970-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip2",
                        "layerDigests": [module["digest"]]});
    let config = layout.put_json(WASM_CONFIG, &config);
    layout.manifest(&config, &[module])
}

/// Runs `/hello` in a container with an empty root filesystem, whose image is this one. `ctr run` makes no container of
/// an artifact, as CRI does; so one is made of another image, for the host's platform, and gets its image by the API.
fn run_as_image(bed: &Bed, image: &str, id: &str) -> Output {
    let mut layout = Layout::default();
    let root = layout.image(host(), &[]);
    let donor = layout.import(bed, &format!("{id}-donor"), &on(&root, Some(host())));
    bed.ctr(&["containers", "create", "--runtime", RUNTIME, &donor, id, "/hello"]).run().ok();
    set_image(bed, id, image);
    let run = bed.ctr(&["tasks", "start", id]).run();
    bed.ctr(&["containers", "delete", id]).run().ok();
    run
}

/// Clients read an image before they make a container of it, so what they can't read comes to the shim by the API only.
fn what_clients_would_refuse_is_named(suite: Suite) {
    let bed = Bed::get(suite);
    let mut layout = Layout::default();
    let module = layout.put(WASM, guests::wat("exit0"));
    let config = layout.put(CONFIG, "not JSON");
    let no_json = layout.manifest(&config, std::slice::from_ref(&module));
    let config = layout.put(CONFIG, "{}");
    let unknown_config = json!({"mediaType": "application/x.config", "size": 2, "digest": config["digest"]});
    let unknown_config = layout.manifest(&unknown_config, &[module]);
    // As after a pull for another platform.
    let absent = layout.image(PLATFORM, &[(WASM, guests::wat("exit0"))]);
    let absent_digest = absent["digest"].as_str().expect("a digest").to_owned();
    let absent = layout.index(&[(absent, Some(PLATFORM))]);
    let foreign = layout.image("windows/amd64", &[]);
    let foreign = layout.index(&[(foreign, Some("windows/amd64"))]);
    for (name, root, tells) in [
        ("config-no-json", no_json, "config sha256:"),
        ("config-unknown", unknown_config, "application/x.config"),
        ("manifest-absent", absent, &*absent_digest),
        ("platform-foreign", foreign, "windows/amd64"),
    ] {
        let image = layout.import(bed, name, &root);
        if name == "manifest-absent" {
            bed.ctr(&["content", "delete", &absent_digest]).run().ok();
        }
        let refused = run_as_image(bed, &image, name);
        assert_ne!(refused.status, 0, "{refused}");
        for text in [tells, &image] {
            assert!(refused.stderr.contains(text), "expected {text:?}\n{refused}");
        }
        bed.assert_gone(name);
    }
}

fn set_image(bed: &Bed, id: &str, image: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let channel = bed.containerd_channel().await.expect("containerd");
        let container = Container { id: id.to_owned(), image: image.to_owned(), ..Container::default() };
        let paths = prost_types::FieldMask { paths: vec!["image".to_owned()] };
        let mut request = Request::new(UpdateContainerRequest { container: Some(container), update_mask: Some(paths) });
        request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static("default"));
        ContainersClient::new(channel).update(request).await.expect("name another image");
    });
}

fn an_index_gives_the_wasm_of_its_platforms(suite: Suite) {
    /// A name, the platform that is asked for, what the index has, and the exit code of the module that must run.
    type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], i32);

    let bed = Bed::get(suite);
    let exit = |guest: &str| vec![(WASM, guests::wat(guest))];
    let native = |layout: &mut Layout| layout.image(host(), &[]);
    let rows: [Row; 5] = [
        ("index-wasi", "wasi/wasm", &[("wasip1/wasm", "exit42"), ("wasi/wasm", "exit0")], 0),
        ("index-p1", "wasip1/wasm", &[("windows/amd64", "exit0"), ("wasip1/wasm", "exit42")], 42),
        ("index-p2", "wasip2/wasm", &[("wasip2/wasm", "exit42"), ("linux/wasm", "exit0")], 42),
        ("index-wasm32", "wasi/wasm32", &[("wasi/wasm32", "exit42")], 42),
        ("index-linux", "linux/wasm", &[("linux/wasm", "exit42")], 42),
    ];
    for (name, platform, entries, code) in rows {
        let mut layout = Layout::default();
        let mut manifests = vec![(native(&mut layout), Some(host()))];
        for (platform, guest) in entries {
            manifests.push((layout.image(platform, &exit(guest)), Some(*platform)));
        }
        let index = layout.index(&manifests);
        let image = layout.import(bed, name, &index);
        ctr_run(bed, &image, name, platform, &[]).run().expect(code);

        let nested = layout.index(&[(index, None)]);
        let name = format!("nested-{name}");
        let image = layout.import(bed, &name, &nested);
        ctr_run(bed, &image, &name, platform, &[]).run().expect(code);
    }
    // Kubernetes can't ask for a platform: it gets the native image's root filesystem, and the index's module.
    let mut layout = Layout::default();
    let native = native(&mut layout);
    let wasm = layout.image(PLATFORM, &exit("exit42"));
    let index = layout.index(&[(native, Some(host())), (wasm, Some(PLATFORM))]);
    let image = layout.import(bed, "index-host", &index);
    ctr_run(bed, &image, "index-host", host(), &["/app.wasm"]).run().expect(42);
}

fn a_start_reads_nothing_of_an_image_whose_module_is_cached(suite: Suite) {
    let bed = Bed::get(suite);
    let mut layout = Layout::default();
    let module = guests::padded(guests::wat("exit42"), 5);
    let root = layout.image(PLATFORM, &[(WASM, module)]);
    let image = layout.import(bed, "layer-cached", &on(&root, Some(PLATFORM)));
    ctr_run(bed, &image, "layer-cached", PLATFORM, &[]).run().expect(42);
    // Whoever read a blob now would notice.
    for (digest, bytes) in layout.0.iter().filter(|(digest, _)| root["digest"] != digest.as_str()) {
        if !bytes.starts_with(b"{") {
            fs::remove_file(bed.path(content_path(digest))).expect("remove the blob");
        }
    }
    ctr_run(bed, &image, "layer-cached", PLATFORM, &[]).run().expect(42);
}

/// Where containerd keeps a blob.
fn content_path(digest: &str) -> String {
    format!("/var/lib/containerd/io.containerd.content.v1.content/blobs/{}", digest.replace(':', "/"))
}

fn a_hundred_first_starts_fetch_once(suite: Suite) {
    let bed = Bed::fresh(suite);
    bed.sh("mkdir -p /run/watched
         cp -a /usr/local/bin/lighter-compile /run/watched/lighter-compile
         printf '#!/bin/sh\\necho called >>/run/watched/calls\\nexec /run/watched/lighter-compile \"$@\"\\n' \
           >/run/watched/wrapper
         chmod +x /run/watched/wrapper
         mount --bind /run/watched/wrapper /usr/local/bin/lighter-compile")
        .run()
        .ok();
    let mut layout = Layout::default();
    let root = layout.image(PLATFORM, &[(WASM, guests::p1("hello"))]);
    let image = layout.import(&bed, "layer-many", &on(&root, Some(PLATFORM)));
    bed.ctr(&["images", "mount", "--platform", PLATFORM, &image, "/mnt"]).run().ok();
    thread::scope(|scope| {
        for number in 0..100 {
            let (bed, image) = (&bed, &image);
            scope.spawn(move || {
                assert_eq!(ctr_run(bed, image, &format!("m{number}"), PLATFORM, &[]).run().ok().stdout, HELLO);
            });
        }
    });
    assert_eq!(fs::read_to_string(bed.path("/run/watched/calls")).expect("calls"), "called\n");
    assert_eq!(fs::read_dir(bed.path(format!("{CACHE}/modules"))).expect("modules").count(), 1);
}

fn images_never_wait_for_each_other(suite: Suite) {
    let bed = Bed::fresh(suite);
    let mut layout = Layout::default();
    let held = guests::padded(guests::wat("exit42"), 1);
    let digest = hex(&Sha256::digest(&held));
    let held = layout.image(PLATFORM, &[(WASM, held)]);
    let held = layout.import(&bed, "held", &on(&held, Some(PLATFORM)));
    let other = layout.image(PLATFORM, &[(WASM, guests::p1("hello"))]);
    let other = layout.import(&bed, "other", &on(&other, Some(PLATFORM)));
    // As a fetch of the first that hangs would.
    bed.sh(&format!("mkdir -p -m 0700 {CACHE}/modules")).run().ok();
    let lock = format!("flock -o -x {CACHE}/modules/{digest}.lock sh -c 'echo locked; sleep 60'");
    let lock = bed.cmd(&["sh", "-c", &lock]).spawn();
    lock.wait_for("locked\n");
    let waiting = ctr_run(&bed, &held, "held", PLATFORM, &[]).spawn();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(ctr_run(&bed, &other, "other", PLATFORM, &[]).run().ok().stdout, HELLO);
    drop(lock);
    waiting.wait().expect(42);
}

fn what_is_wrong_is_named(suite: Suite) {
    let bed = Bed::get(suite);
    let guest = || guests::wat("exit0");
    let check = |name: &str, layout: &Layout, root: &Value, tells: &[&str]| {
        let image = layout.import(bed, name, &on(root, Some(PLATFORM)));
        let refused = ctr_run(bed, &image, name, PLATFORM, &["/app.wasm"]).run();
        assert_ne!(refused.status, 0, "{refused}");
        for text in tells {
            assert!(refused.stderr.contains(text), "expected {text:?}\n{refused}");
        }
        bed.assert_gone(name);
    };
    let mut layout = Layout::default();
    let two = layout.image(PLATFORM, &[(WASM, guest()), (COMPONENT, guests::p2("hello"))]);
    check("two-modules", &layout, &two, &["docker.io/library/two-modules", "several WebAssembly layers"]);

    let mut layout = Layout::default();
    let unknown = layout.image(PLATFORM, &[("application/x.unknown", guest())]);
    check("unknown-layer", &layout, &unknown, &["application/x.unknown", "layer sha256:"]);

    let mut layout = Layout::default();
    let only_files = layout.image(PLATFORM, &[]);
    check("no-module", &layout, &only_files, &["entrypoint \"/app.wasm\"", "ENTRYPOINT"]);

    let mut layout = Layout::default();
    let not_wasm = layout.image(PLATFORM, &[(WASM, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec())]);
    check("native-layer", &layout, &not_wasm, &["native program"]);
}

fn a_damaged_layer_is_named_and_never_kept(suite: Suite) {
    let bed = Bed::get(suite);
    let mut layout = Layout::default();
    let module = guests::padded(guests::wat("exit0"), 7);
    let digest = format!("sha256:{}", hex(&Sha256::digest(&module)));
    let root = layout.image(PLATFORM, &[(WASM, module.clone())]);
    let image = layout.import(bed, "damaged-layer", &on(&root, Some(PLATFORM)));
    let mut damaged = module;
    *damaged.last_mut().expect("bytes") ^= 1;
    fs::write(bed.path(content_path(&digest)), damaged).expect("damage the blob");
    let refused = ctr_run(bed, &image, "damaged-layer", PLATFORM, &[]).run();
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.stderr.contains(&digest) && refused.stderr.contains("damaged"), "{refused}");
    let kept = bed.path(format!("{CACHE}/modules/{}.wasm", digest.trim_start_matches("sha256:")));
    assert!(!kept.exists());
    bed.assert_gone("damaged-layer");
}

fn a_missing_layer_is_named(suite: Suite) {
    let bed = Bed::get(suite);
    let mut layout = Layout::default();
    let module = guests::padded(guests::wat("exit0"), 9);
    let digest = format!("sha256:{}", hex(&Sha256::digest(&module)));
    let root = layout.image(PLATFORM, &[(WASM, module)]);
    let image = layout.import(bed, "missing-layer", &on(&root, Some(PLATFORM)));
    bed.ctr(&["content", "delete", &digest]).run().ok();
    let refused = ctr_run(bed, &image, "missing-layer", PLATFORM, &[]).run();
    assert_ne!(refused.status, 0, "{refused}");
    assert!(refused.stderr.contains(&digest), "{refused}");
    bed.assert_gone("missing-layer");
}

fn a_container_without_an_image_is_told_so(suite: Suite) {
    let bed = Bed::get(suite);
    bed.sh("mkdir -p /tmp/bare /tmp/full").run().ok();
    fs::write(bed.path("/tmp/full/app.wasm"), guests::p1("hello")).expect("write the module");
    let run = |rootfs: &str, id: &str| {
        bed.ctr(&["run", "--rm", "--runtime", RUNTIME, "--rootfs", rootfs, id, "/app.wasm"]).run()
    };
    assert_eq!(run("/tmp/full", "rootfs-full").ok().stdout, HELLO);
    let refused = run("/tmp/bare", "rootfs-bare");
    assert_ne!(refused.status, 0, "{refused}");
    for text in ["entrypoint \"/app.wasm\"", "knows of no image", "rootfs-bare"] {
        assert!(refused.stderr.contains(text), "expected {text:?}\n{refused}");
    }
    bed.assert_gone("rootfs-bare");
}

/// Docker names a container's image to containerd since version 27.
fn docker_runs_them_where_it_names_the_image(suite: Suite) {
    let bed = Bed::get(suite);
    let mut layout = Layout::default();
    let root = layout.image(PLATFORM, &[(WASM, guests::p1("hello"))]);
    let name = "docker.io/library/layer-docker:latest";
    bed.docker(&["load"]).stdin(layout.archive(name, &on(&root, Some(PLATFORM)))).run().ok();
    let run = ["run", "--rm", "--network", "none", "--runtime", RUNTIME, "--platform", PLATFORM, "layer-docker"];
    let ran = bed.docker(&run).run();
    match suite {
        Suite::Forky => assert_eq!(ran.ok().stdout, HELLO),
        Suite::Trixie => {
            assert_ne!(ran.status, 0, "{ran}");
            assert!(ran.stderr.contains("Docker before 27"), "{ran}");
        }
    }
    // An artifact has no container config, but Docker takes it by its platform, given a command.
    let mut layout = Layout::default();
    let root = artifact(&mut layout, &guests::p2("hello"));
    let archive = layout.archive("docker.io/library/artifact-docker:latest", &on(&root, Some("wasip2/wasm")));
    bed.docker(&["load"]).stdin(archive).run().ok();
    let run = ["run", "--rm", "--network", "none", "--runtime", RUNTIME, "--platform", "wasip2/wasm"];
    let ran = bed.docker(&[&run[..], &["artifact-docker", "/hello"]].concat()).run();
    if suite == Suite::Forky {
        assert_eq!(ran.ok().stdout, HELLO);
    }
    // What every Docker takes: the module in the root filesystem.
    let image = Image::wasm("docker.io/library/layer-not:latest", guests::p1("hello"));
    bed.docker_load(&image);
    let run = ["run", "--rm", "--network", "none", "--runtime", RUNTIME, "--platform", PLATFORM, "layer-not"];
    assert_eq!(bed.docker(&run).run().ok().stdout, HELLO);
}
