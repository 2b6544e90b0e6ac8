//! What is no module: each gets a one-line error from Create or Start, soon, and leaves nothing behind.

use std::{
    fs,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Image, Suite, guests, on_every_suite};

use crate::case::{Client, ctr_run};

/// A second for us, and some for the client on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// The start of an ELF file for 64 bits, little endian.
const ELF: [u8; 16] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0";

/// An image that can't run, and what the error must tell besides the path of the entrypoint.
struct Bad {
    image: fn(Image) -> Image,
    entrypoint: &'static str,
    tells: &'static [&'static str],
}

macro_rules! bad {
    ($($name:ident: $entrypoint:literal, $image:expr, $tells:expr;)+) => {
        $(mod $name {
            use super::*;

            const BAD: Bad = Bad { image: $image, entrypoint: $entrypoint, tells: &$tells };

            #[test]
            fn trixie() {
                check(stringify!($name), &BAD, Suite::Trixie);
            }

            #[test]
            fn forky() {
                check(stringify!($name), &BAD, Suite::Forky);
            }
        })+
    };
}

bad! {
    text_module: "/app.wat", |image| image.file("/app.wat", "(module)"), ["text"];
    native_program: "/app", |image| image.file("/app", ELF), ["exec format error"];
    empty_file: "/app.wasm", |image| image.file("/app.wasm", ""), ["empty"];
    header_only_in_part: "/app.wasm", |image| image.file("/app.wasm", "\0asm"), [];
    truncated_module: "/app.wasm", |image| image.file("/app.wasm", &guests::p1("hello")[..3000]), [];
    truncated_component: "/app.wasm", |image| image.file("/app.wasm", &guests::p2("hello")[..3000]), [];
    damaged_module: "/app.wasm", |image| image.file("/app.wasm", *b"\0asm\x01\0\0\0damaged"), [];
    module_without_start: "/app.wasm", |image| image.file("/app.wasm", *b"\0asm\x01\0\0\0"), ["_start"];
    missing_entrypoint: "/nowhere.wasm", |image| image.file("/app.wasm", guests::wat("hello")), ["no such file"];
    folder_as_entrypoint: "/folder.wasm", |image| image.folder("/folder.wasm"), ["directory"];
    link_to_nowhere: "/link.wasm", |image| image.symlink("/link.wasm", "/not/there"), [];
    link_to_itself: "/link.wasm", |image| image.symlink("/link.wasm", "link.wasm"), [];
    script: "/run.sh", |image| image.file("/run.sh", "#!/bin/sh\n"), [];
}

on_every_suite! { precompiled_module }

/// Native code of the very engine that it would run on, from the cache; but an image is a stranger's.
fn precompiled_module(suite: Suite) {
    let bed = Bed::get(suite);
    let hello = Image::wasm("docker.io/library/to-precompile:latest", guests::wat("hello"));
    ctr_run(bed, &hello, "to-precompile", &[], &[]).ok();
    let found = bed.sh("find /var/lib/lighter/cache -path '*/wasmtime-*' -name '*.cwasm' | head -n 1").run().ok();
    let native_code = fs::read(bed.path(found.stdout.trim())).expect("an entry of the cache");
    let image = Image::new("docker.io/library/precompiled:latest").file("/app.cwasm", native_code);
    check_refused(bed, "precompiled", &image, "/app.cwasm", &["native"]);
}

#[track_caller]
fn check(name: &str, bad: &Bad, suite: Suite) {
    let name = name.replace('_', "-");
    let image = (bad.image)(Image::new(&format!("docker.io/library/{name}:latest")));
    check_refused(Bed::get(suite), &name, &image, bad.entrypoint, bad.tells);
}

#[track_caller]
fn check_refused(bed: &Bed, name: &str, image: &Image, entrypoint: &str, tells: &[&str]) {
    let image = image.clone().entrypoint(&[entrypoint]);
    for client in Client::ALL {
        let id = format!("{name}-by-{client:?}").to_lowercase();
        let run = client.run(bed, &image, &id, &[], &[]);
        let start = Instant::now();
        let output = run.run();
        let took = start.elapsed();
        assert_ne!(output.status, 0, "{output}");
        assert_ne!(output.status, 137, "{output}");
        assert!(took < SOON, "took {took:?}\n{output}");
        assert_eq!(output.stdout, "", "{output}");
        for text in tells.iter().chain([&entrypoint]) {
            assert!(output.stderr.contains(text), "expected {text:?} on stderr\n{output}");
        }
        let lines = output.stderr.lines().filter(|line| line.contains(entrypoint)).count();
        assert_eq!(lines, 1, "{output}");
        if client == Client::Ctr {
            bed.assert_gone(&id);
        }
    }
}
