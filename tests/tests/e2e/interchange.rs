//! What Lighter pushes, others pull and run; what others push, Lighter pulls and runs.

use lighter_tests::{Bed, ENTRYPOINT, Image, PLATFORM, RUNTIME, Registry, Suite, guests, on_every_suite};
use serde_json::{Value, json};

use crate::{
    cli::Lighter,
    registry::{FORMATS, HELLO, pull_and_run, push_hello},
};

on_every_suite! {
    skopeo_copies_what_lighter_pushed,
    oras_pulls_what_lighter_pushed,
    ctr_runs_what_lighter_pushed,
    docker_runs_what_lighter_pushed,
    lighter_takes_what_docker_pushed,
    lighter_takes_what_oras_pushed,
    lighter_takes_what_skopeo_pushed,
    lighter_takes_what_ctr_pushed,
}

fn skopeo_copies_what_lighter_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let secure = bed.start_registry(Registry::Tls);
    for (format, _) in FORMATS {
        let lighter = Lighter::new(bed);
        let name = format!("for-skopeo/{format}:1");
        let digest = push_hello(&lighter, &format!("{registry}/{name}"), format);
        let from = format!("docker://{registry}/{name}");
        let inspected = bed.cmd(&["skopeo", "inspect", "--raw", "--tls-verify=false", &from]).run().ok();
        let manifest: Value = serde_json::from_str(&inspected.stdout).expect("a manifest");
        assert_eq!(manifest["schemaVersion"], 2);
        let copy = ["skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", &from];
        bed.cmd(&[&copy[..], &[&format!("docker://{secure}/{name}")]].concat()).run().ok();
        let copied = pull_and_run(bed, &format!("{secure}/{name}"));
        assert_eq!(copied.json(&["ls"])[0]["digest"], digest.as_str());
    }
}

fn oras_pulls_what_lighter_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    let reference = format!("{}/for-oras/hello:1", bed.registry());
    let lighter = Lighter::new(bed);
    let guest = guests::p2("hello");
    let digest = lighter.build(&guest, &reference, &[]);
    lighter.run(&["push", &reference]).ok();
    let resolved = bed.cmd(&["oras", "resolve", "--plain-http", &reference]).run().ok();
    assert_eq!(resolved.stdout.trim(), digest);
    let config = bed.cmd(&["oras", "manifest", "fetch-config", "--plain-http", &reference]).run().ok();
    let config: Value = serde_json::from_str(&config.stdout).expect("a config");
    assert_eq!((&config["os"], &config["architecture"]), (&"wasip2".into(), &"wasm".into()));
    let exports = config["component"]["exports"].as_array().expect("exports of a component");
    assert!(exports.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("wasi:cli/run@"))), "{config}");
    let manifest = bed.cmd(&["oras", "manifest", "fetch", "--plain-http", &reference]).run().ok();
    let manifest: Value = serde_json::from_str(&manifest.stdout).expect("a manifest");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    let layer = manifest["layers"][0]["digest"].as_str().expect("a layer");
    assert_eq!(config["layerDigests"], json!([layer]));
    let repository = reference.trim_end_matches(":1");
    let blob = format!("{repository}@{layer}");
    lighter.program(&["oras", "blob", "fetch", "--plain-http", "-o", "fetched.wasm", &blob]).run().ok();
    assert!(lighter.read("fetched.wasm") == guest);
}

fn ctr_runs_what_lighter_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    for format in ["image", "tar"] {
        let reference = format!("{}/for-ctr/{format}:1", bed.registry());
        push_hello(&Lighter::new(bed), &reference, format);
        bed.ctr(&["images", "pull", "--plain-http", "--platform", PLATFORM, &reference]).run().ok();
        let id = format!("pushed-{format}-for-ctr");
        let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, &reference, &id];
        assert_eq!(bed.ctr(&run).run().ok().stdout, HELLO, "{format}");
        bed.assert_gone(&id);
    }
}

fn docker_runs_what_lighter_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    // Before 27, Docker doesn't tell the shim which image a container is of, so only what is in files can run.
    let formats: &[&str] = if suite == Suite::Trixie { &["tar"] } else { &["image", "tar"] };
    for format in formats {
        let reference = format!("{}/for-docker/{format}:1", bed.registry());
        push_hello(&Lighter::new(bed), &reference, format);
        bed.docker(&["pull", "--platform", PLATFORM, &reference]).run().ok();
        let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, "--network", "none", &reference];
        assert_eq!(bed.docker(&run).run().ok().stdout, HELLO, "{format}");
    }
}

fn lighter_takes_what_docker_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    let reference = format!("{}/by-docker/hello:1", bed.registry());
    let lighter = Lighter::new(bed);
    lighter.write("hello.wasm", guests::p1("hello"));
    lighter.write("Dockerfile", "FROM scratch\nCOPY hello.wasm /hello.wasm\nENTRYPOINT [\"/hello.wasm\"]\n");
    bed.docker(&["build", "--platform", PLATFORM, "--tag", &reference, lighter.folder()]).run().ok();
    bed.docker(&["push", &reference]).run().ok();
    // An index, which holds an attestation beside the image.
    let other = pull_and_run(bed, &reference);
    let inspected = other.json(&["inspect", &reference]);
    assert!(inspected.to_string().contains("wasi/wasm"), "{inspected}");
    assert!(inspected.to_string().contains("/hello.wasm"), "{inspected}");
    other.run(&["pull", "--all-platforms", &reference]).ok();
    other.assert_whole();
}

fn lighter_takes_what_oras_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let lighter = Lighter::new(bed);
    lighter.write("hello.wasm", guests::p1("hello"));
    lighter.write("wasm.json", r#"{"architecture":"wasm","os":"wasip1","layerDigests":[]}"#);
    lighter.write("image.json", r#"{"architecture":"wasm","os":"wasi","config":{}}"#);
    let component_layer = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
    let table = [
        ("--artifact-type application/vnd.wasm.config.v0+json", "application/wasm"),
        ("--config wasm.json:application/vnd.wasm.config.v0+json", "application/wasm"),
        ("--config wasm.json:application/vnd.wasm.config.v0+json", component_layer),
        ("--config image.json:application/vnd.oci.image.config.v1+json", "application/wasm"),
        ("--config image.json:application/vnd.oci.image.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"),
    ];
    for (number, (flags, layer)) in table.into_iter().enumerate() {
        let reference = format!("{registry}/by-oras/{number}:1");
        lighter.sh(&format!("oras push --plain-http {flags} {reference} hello.wasm:{layer}")).run().ok();
        let other = pull_and_run(bed, &reference);
        other.run(&["inspect", &reference]).ok();
    }
    let reference = format!("{registry}/by-oras/unknown:1");
    lighter.sh(&format!("oras push --plain-http {reference} hello.wasm:text/html")).run().ok();
    let other = Lighter::new(bed);
    other.run(&["pull", &reference]).ok();
    let refused = other.run(&["run", &reference]).expect(125);
    assert!(refused.stderr.contains("text/html"), "{refused}");
}

fn lighter_takes_what_skopeo_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    let secure = bed.start_registry(Registry::Tls);
    let lighter = Lighter::new(bed);
    let image = Image::wasm("docker.io/library/of-an-archive:1", guests::p1("hello"));
    lighter.write("image.tar", image.to_tar());
    // As it is, in Docker's media types, with its layer compressed.
    let table = ["", "--format v2s2", "--dest-compress-format zstd --dest-compress"];
    for (number, flags) in table.into_iter().enumerate() {
        let reference = format!("{secure}/by-skopeo/{number}:1");
        let copy = format!("skopeo --override-os wasi --override-arch wasm copy {flags}");
        lighter.sh(&format!("{copy} oci-archive:image.tar docker://{reference}")).run().ok();
        pull_and_run(bed, &reference);
    }
}

fn lighter_takes_what_ctr_pushed(suite: Suite) {
    let bed = Bed::get(suite);
    let reference = format!("{}/by-ctr/hello:1", bed.registry());
    let image = Image::wasm(&reference, guests::p1("hello")).env("FROM", "the image").cmd(&["one"]);
    bed.import(&image);
    bed.ctr(&["images", "push", "--plain-http", "--platform", PLATFORM, &reference]).run().ok();
    let other = pull_and_run(bed, &reference);
    let inspected = other.json(&["inspect", &reference]).to_string();
    for part in [ENTRYPOINT, "FROM=the image", "one"] {
        assert!(inspected.contains(part), "{part} in {inspected}");
    }
}
