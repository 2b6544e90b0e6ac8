//! The testbed itself, with containers that need none of our binaries.

use std::fs;

use containerd_client::services::v1::version_client::VersionClient;
use lighter_tests::{Bed, Image, Suite, guests, on_every_suite};

const NATIVE: &str = "docker.io/library/native:latest";

on_every_suite! {
    native_container_by_ctr,
    native_container_by_docker,
    wasm_image_is_known_to_both,
    registry_takes_and_gives,
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
