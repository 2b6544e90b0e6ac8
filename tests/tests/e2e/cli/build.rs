//! `lighter build`: the same input gives the same image, and what is no module gives none.

use lighter_tests::{Bed, Suite, guests, on_every_suite};
use serde_json::Value;

use super::{Lighter, assert_refused};

on_every_suite! {
    the_same_input_gives_the_same_digest,
    modules_and_components_are_told_apart,
    what_is_no_module_is_refused,
    formats_hold_only_what_they_can,
    image_settings_reach_the_guest,
    annotations,
    from_standard_input,
}

const FORMATS: [&str; 3] = ["artifact", "image", "tar"];

fn the_same_input_gives_the_same_digest(suite: Suite) {
    let bed = Bed::get(suite);
    for format in FORMATS {
        let files: &[&str] = if format == "artifact" { &[] } else { &["--file", "public:/srv", "--env", "A=1"] };
        let build = |environment: &str, when: &str| {
            let lighter = Lighter::new(bed).env(environment);
            // Made in another order, at another time, with other modes, by another user.
            let names = if when == "now" { ["a", "b"] } else { ["b", "a"] };
            for name in names {
                lighter.write(&format!("public/{name}.txt"), name);
            }
            lighter.write("app.wasm", guests::p2("hello"));
            let chmod = if when == "now" { "0644" } else { "0640" };
            let change =
                format!("touch -d '{when}' app.wasm public/* public; chmod {chmod} public/*; ls -f public >&2");
            lighter.sh(&change).run().ok();
            if when != "now" {
                lighter.sh("chown -R 1000:1000 public").run().ok();
            }
            let arguments = [&["build", "app.wasm", "-t", "same:1", "--format", format], files].concat();
            lighter.json(&arguments)["digest"].as_str().expect("a digest").to_owned()
        };
        let digest = build("X=1", "now");
        assert_eq!(build("X=2", "2001-01-01"), digest, "{format}");
        let dated = build("SOURCE_DATE_EPOCH=1000000000", "now");
        assert_ne!(dated, digest, "{format}");
        assert_eq!(build("SOURCE_DATE_EPOCH=1000000000", "2001-01-01"), dated, "{format}");
    }
}

fn modules_and_components_are_told_apart(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    for (guest, kind, platform) in
        [(guests::p1("hello"), "module", "wasip1/wasm"), (guests::p2("hello"), "component", "wasip2/wasm")]
    {
        lighter.write("app.wasm", guest);
        let built = lighter.json(&["build", "app.wasm", "-t", "told:1"]);
        assert_eq!((&built["kind"], &built["platform"]), (&kind.into(), &platform.into()), "{built}");
        assert_eq!(built["reference"], "docker.io/library/told:1");
        assert_eq!(built["layers"][0]["mediaType"], "application/wasm");
        let container = lighter.json(&["build", "app.wasm", "-t", "told:2", "--format", "tar"]);
        assert_eq!(container["platform"], "wasi/wasm");
    }
    let text = lighter.run(&["build", "app.wasm", "-t", "told:1"]).ok();
    let first = text.stdout.lines().next().expect("a line");
    assert!(first.starts_with("docker.io/library/told:1@sha256:"), "{text}");
    // Who has built it wants to push and to run it.
    assert!(text.stdout.contains("lighter push") && text.stdout.contains("lighter run"), "{text}");
}

fn what_is_no_module_is_refused(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let hello = guests::p1("hello");
    let table: [(&str, &[u8], &str); 8] = [
        ("text.wat", b"(module)", "text"),
        ("native", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "native"),
        ("code.cwasm", b"\x7fELF\x02\x01\x01\xc8\0\0\0\0\0\0\0\0", "native code"),
        ("script.sh", b"#!/bin/sh\n", "script"),
        ("empty.wasm", b"", "empty"),
        ("short.wasm", b"\0asm", "truncated"),
        ("half.wasm", &hello[..hello.len() / 2], "half.wasm"),
        ("damaged.wasm", b"\0asm\x01\0\0\0damaged", "damaged.wasm"),
    ];
    for (name, bytes, says) in table {
        lighter.write(name, bytes);
        assert_refused(lighter.run(&["build", name, "-t", "refused:1"]), &[name, says]);
    }
    assert_refused(lighter.run(&["build", "nowhere.wasm", "-t", "refused:1"]), &["nowhere.wasm"]);
    assert_refused(lighter.run(&["build", "/tmp", "-t", "refused:1"]), &["/tmp"]);
    assert_eq!(lighter.json(&["ls"]), Value::Array(Vec::new()));
    assert!(lighter.blobs().is_empty());
}

fn formats_hold_only_what_they_can(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    lighter.write("app.wasm", guests::wat("hello"));
    for flags in
        [["--env", "A=1"], ["--entrypoint", "/x"], ["--cmd", "x"], ["--workdir", "/"], ["--file", "app.wasm:/x"]]
    {
        let build = ["build", "app.wasm", "-t", "holds:1"];
        assert_refused(lighter.run(&[&build[..], &flags].concat()), &[flags[0], "--format image"]);
        lighter.run(&[&build[..], &["--format", "image"], &flags].concat()).ok();
    }
    assert_refused(
        lighter.run(&["build", "app.wasm", "-t", "holds:1", "--format", "tar", "--file", "absent:/x"]),
        &["absent"],
    );
}

fn image_settings_reach_the_guest(suite: Suite) {
    let bed = Bed::get(suite);
    for format in ["image", "tar"] {
        let lighter = Lighter::new(bed);
        lighter.write("app.wasm", guests::p1("show"));
        lighter.write("public/note", "text");
        let flags = "--entrypoint /app.wasm --entrypoint fixed --cmd default --env COLOUR=green --workdir /srv \
                     --file public:/srv";
        lighter.sh(&format!("lighter build app.wasm -t settings:1 --format {format} {flags}")).run().ok();
        let shown = lighter.run(&["run", "settings:1"]).ok().stdout;
        for line in ["arg[1]=fixed\n", "arg[2]=default\n", "env COLOUR=green\n"] {
            assert!(shown.contains(line), "{format}: no {line:?} in {shown}");
        }
        let shown = lighter.run(&["run", "--env", "COLOUR=blue", "settings:1", "--", "other"]).ok().stdout;
        for line in ["arg[1]=fixed\n", "arg[2]=other\n", "env COLOUR=blue\n"] {
            assert!(shown.contains(line), "{format}: no {line:?} in {shown}");
        }
        lighter.write("app.wasm", guests::p1("files"));
        lighter
            .sh(&format!("lighter build app.wasm -t files:1 --format {format} --workdir /srv --file public:/srv"))
            .run()
            .ok();
        assert_eq!(lighter.run(&["run", "files:1", "--", "read", "note"]).ok().stdout, "text\n", "{format}");
    }
}

fn annotations(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    lighter.write("app.wasm", guests::p1("hello"));
    let name = "org.opencontainers.image.description";
    let annotation = format!("{name}=says hello");
    lighter.run(&["build", "app.wasm", "-t", "noted:1", "--annotation", &annotation]).ok();
    let inspected = lighter.json(&["inspect", "noted:1"]).to_string();
    assert!(inspected.contains(name) && inspected.contains("says hello"), "{inspected}");
}

fn from_standard_input(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    // What has no file's name is named after the image.
    lighter.write("piped.wasm", guests::p1("hello"));
    let built = lighter.json(&["build", "piped.wasm", "-t", "me/piped:1"]);
    let piped = lighter.cmd(&["--json", "build", "-", "-t", "me/piped:2"]).stdin(guests::p1("hello")).run().ok();
    let piped: Value = serde_json::from_str(&piped.stdout).expect("JSON");
    assert_eq!(piped["digest"], built["digest"]);
    assert_refused(lighter.run(&["build", "-", "-t", "piped:3"]), &["standard input", "empty"]);
}
