//! The testbed itself, with containers that need none of our binaries.

use std::fs;

use containerd_client::services::v1::version_client::VersionClient;
use lighter_tests::{Bed, Fault, Image, Proxy, Registry, Suite, guests, on_every_suite};

const NATIVE: &str = "docker.io/library/native:latest";

on_every_suite! {
    native_container_by_ctr,
    native_container_by_docker,
    wasm_image_is_known_to_both,
    registry_takes_and_gives,
    registry_with_login_wants_one,
    registry_with_tls_is_trusted_by_one_name,
    proxy_passes_on_what_it_should,
    proxy_fails_as_it_should,
    containerd_answers_over_grpc,
    leftovers_are_seen,
}

/// An image with a static busybox, whose `sh` is the entry point.
fn native(bed: &Bed) -> Image {
    let busybox = fs::read(bed.path("/usr/bin/busybox")).expect("busybox-static is in the root filesystem");
    Image::new(NATIVE).platform("linux", "amd64").file("/bin/sh", busybox).entrypoint(&["/bin/sh", "-c"])
}

fn native_container_by_ctr(suite: Suite) {
    let bed = Bed::get(suite);
    bed.import(&native(bed));
    let id = "native-by-ctr";
    let run = bed.ctr(&["run", "--rm", NATIVE, id, "/bin/sh", "-c", "echo out; echo err >&2; exit 3"]).run().expect(3);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    bed.assert_gone(id);
}

fn native_container_by_docker(suite: Suite) {
    let bed = Bed::get(suite);
    bed.docker_load(&native(bed));
    let run = ["run", "--rm", "-i", "--network", "none", "--memory", "64m", NATIVE, "cat; exit 4"];
    assert_eq!(bed.docker(&run).stdin("through").run().expect(4).stdout, "through");
}

fn wasm_image_is_known_to_both(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/known:latest", guests::wat("hello"));
    bed.import(&image);
    bed.docker_load(&image);
    let listed = bed.ctr(&["images", "ls"]).run().ok().stdout;
    let line = listed.lines().find(|line| line.starts_with(image.name())).expect("ctr lists the image");
    assert!(line.contains("wasi/wasm"), "{line}");
    let inspect = ["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", "known"];
    assert_eq!(bed.docker(&inspect).run().ok().stdout, "wasi/wasm\n");
}

fn registry_takes_and_gives(suite: Suite) {
    let bed = Bed::get(suite);
    let name = format!("{}/pushed:latest", bed.registry());
    bed.import(&Image::wasm(&name, guests::wat("hello")));
    bed.ctr(&["images", "push", "--plain-http", "--platform", "wasi/wasm", &name]).run().ok();
    bed.ctr(&["images", "rm", &name]).run().ok();
    bed.ctr(&["images", "pull", "--plain-http", "--platform", "wasi/wasm", &name]).run().ok();
}

/// `skopeo inspect` of an image that isn't there, with these flags.
fn inspect_nothing(bed: &Bed, registry: &str, flags: &[&str]) -> String {
    let image = format!("docker://{registry}/nothing:1");
    bed.cmd(&[&["skopeo", "inspect"], flags, &[&image]].concat()).run().stderr
}

fn registry_with_login_wants_one(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.start_registry(Registry::Login);
    let inspect = |credentials: &str| {
        let credentials = if credentials.is_empty() { "--no-creds".into() } else { format!("--creds={credentials}") };
        inspect_nothing(bed, registry, &["--tls-verify=false", &credentials])
    };
    let known = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    assert!(inspect(&known).contains("manifest unknown"));
    for unknown in ["", "boatman:sinker", "stranger:ballast"] {
        assert!(inspect(unknown).contains("authentication required"), "{unknown:?}");
    }
}

fn registry_with_tls_is_trusted_by_one_name(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.start_registry(Registry::Tls);
    let known = inspect_nothing(bed, registry, &[]);
    assert!(known.contains("manifest unknown"), "{known}");
    let unknown = inspect_nothing(bed, Registry::UNKNOWN_TLS, &[]);
    assert!(unknown.contains("unknown authority"), "{unknown}");
}

/// Size of the file that is fetched through proxies, in bytes: more than a document has.
const SIZE: usize = 300_000;

/// Puts a layer on the registry, and returns its path there.
fn layer(bed: &Bed, repository: &str) -> String {
    let name = format!("{}/{repository}:1", bed.registry());
    bed.import(&Image::new(&name).file("/noise", guests::padded(guests::wat("hello"), SIZE)));
    bed.ctr(&["images", "push", "--plain-http", "--platform", "wasi/wasm", &name]).run().ok();
    let manifest =
        bed.cmd(&["skopeo", "inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]).run().ok();
    let manifest: serde_json::Value = serde_json::from_str(&manifest.stdout).expect("a manifest");
    format!("/v2/{repository}/blobs/{}", manifest["layers"][0]["digest"].as_str().expect("a layer"))
}

/// The SHA-256 and the length of a file of which `start` bytes are there, and wget fetches the rest; and wget's exit code.
/// It gives up after 3 s without a byte.
fn fetch(bed: &Bed, address: &str, path: &str, start: usize) -> (String, usize, i32) {
    let script = format!(
        "f=$(mktemp); s=0; head -c {start} /dev/zero >$f; busybox wget -q -c -T 3 -O $f http://{address}{path} || s=$?
         sha256sum <$f | cut -c 1-64; wc -c <$f; echo $s"
    );
    let answer = bed.sh(&script).run().ok().stdout;
    let mut lines = answer.lines();
    let mut line = || lines.next().expect("a line").to_owned();
    (line(), line().parse().expect("a length"), line().parse().expect("an exit code"))
}

fn proxy_passes_on_what_it_should(suite: Suite) {
    let bed = Bed::get(suite);
    let path = layer(bed, "passed-on");
    let whole = fetch(bed, bed.registry(), &path, 0);
    assert!(path.ends_with(&whole.0) && whole.1 > SIZE && whole.2 == 0, "{whole:?}");
    let proxy = Proxy::start(bed, bed.registry(), Fault::Cut(1000), 1);
    // A document, which the fault leaves alone.
    assert_eq!(fetch(bed, &proxy.address(), "/v2/passed-on/tags/list", 0).2, 0);
    assert_eq!(fetch(bed, &proxy.address(), &path, 0).1, 1000);
    assert_eq!(fetch(bed, &proxy.address(), &path, 0), whole);
    let rest = fetch(bed, &proxy.address(), &path, 1000);
    assert_eq!((rest.1, rest.2), (whole.1, 0));
    let (requests, faults) = (proxy.requests(), proxy.faults_left());
    assert_eq!((requests.len(), faults), (4, 0), "{requests:?}");
    assert_eq!((requests[3].range.as_deref(), requests[3].status), (Some("bytes=1000-"), 206));
}

fn proxy_fails_as_it_should(suite: Suite) {
    let bed = Bed::get(suite);
    let path = layer(bed, "failed");
    let whole = fetch(bed, bed.registry(), &path, 0);
    let through = |fault| {
        let proxy = Proxy::start(bed, bed.registry(), fault, 1);
        fetch(bed, &proxy.address(), &path, 0)
    };
    let (digest, length, status) = through(Fault::Corrupt);
    assert!(digest != whole.0 && length == whole.1 && status == 0, "{digest} {length} {status}");
    // wget takes the header's word for it.
    assert_eq!((through(Fault::Short).1, through(Fault::Short).2), (whole.1 / 2, 0));
    assert_ne!(through(Fault::Stall(2000)).2, 0);
    assert_eq!((through(Fault::Stall(2000)).1, through(Fault::Cut(0)).1), (2000, 0));
    assert_ne!(through(Fault::Status(500, None)).2, 0);
    assert_eq!(through(Fault::RefuseManifest), whole);
}

fn containerd_answers_over_grpc(suite: Suite) {
    let bed = Bed::get(suite);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let version = runtime.block_on(async {
        let channel = bed.containerd_channel().await.expect("a channel");
        let answer = VersionClient::new(channel).version(()).await.expect("an answer");
        answer.into_inner().version
    });
    assert!(version.starts_with(if suite == Suite::Trixie { "1.7." } else { "2.1." }), "{version}");
}

fn leftovers_are_seen(suite: Suite) {
    let bed = Bed::fresh(suite);
    bed.import(&native(&bed));
    bed.assert_clean();
    bed.ctr(&["run", "--detach", NATIVE, "stays", "/bin/sh", "-c", "sleep 1000"]).run().ok();
    let left = bed.leftovers();
    for kind in ["process", "mount", "cgroup", "file /run/containerd/s/", "file /run/containerd/io.containerd"] {
        assert!(left.iter().any(|line| line.starts_with(kind)), "no {kind} in {left:#?}");
    }
    bed.ctr(&["task", "rm", "--force", "stays"]).run().ok();
    bed.ctr(&["container", "rm", "stays"]).run().ok();
    bed.assert_clean();
}
