//! A guest that tries to get out, given what a real container has: volumes, links, Docker's files in /etc.

use std::collections::BTreeSet;

use lighter_tests::{Bed, Image, Output, Suite, guests, on_every_suite};

use crate::case::{Client, ctr_run};

on_every_suite! { of_a_module, of_a_component, of_a_module_under_ctr, the_guest_tells_an_escape }

/// A file on the host that no container is given.
const CANARY: &str = "/srv/canary";

/// An image with links to the canary and to the kernel's files.
fn image(guest: Vec<u8>) -> Image {
    Image::wasm("docker.io/library/escape:latest", guest)
        .file("/a/b/file", "")
        .symlink("/link-absolute", CANARY)
        .symlink("/link-relative", "../../../../../../../../../../../../srv/canary")
        .symlink("/link-proc", "/proc/self/environ")
}

/// The same for the volumes; each test has its own, for the guest may change them.
fn volumes(bed: &Bed, name: &str) -> [String; 2] {
    bed.sh(&format!(
        "echo the canary >{CANARY}
         mkdir -p /srv/{name}/data /srv/{name}/ro
         ln -sf {CANARY} /srv/{name}/data/link
         echo original >/srv/{name}/ro/file"
    ))
    .run()
    .ok();
    [format!("/srv/{name}/data:/data"), format!("/srv/{name}/ro:/ro:ro")]
}

#[track_caller]
fn assert_all_refused(output: &Output, at_least: usize) {
    let lines: Vec<&str> = output.stdout.lines().collect();
    let escapes: Vec<&&str> = lines.iter().filter(|line| !line.contains(": refused (")).collect();
    assert!(escapes.is_empty(), "escapes: {escapes:#?}\n{output}");
    let distinct: BTreeSet<&&str> = lines.iter().collect();
    assert!(distinct.len() >= at_least, "only {} attempts\n{output}", distinct.len());
}

#[track_caller]
fn under_docker(suite: Suite, name: &str, guest: Vec<u8>, attempts: usize) {
    let bed = Bed::get(suite);
    let [data, read_only] = volumes(bed, name);
    let flags = ["--read-only", "--network", "none", "--volume", &data, "--volume", &read_only];
    let output = Client::Docker.run(bed, &image(guest), name, &flags, &[CANARY, "read-only-rootfs"]).run().ok();
    assert_all_refused(&output, attempts);
    assert_eq!(bed.sh(&format!("cat {CANARY} /srv/{name}/ro/file")).run().ok().stdout, "the canary\noriginal\n");
    assert_eq!(bed.sh(&format!("ls /srv/{name}/ro")).run().ok().stdout, "file\n");
}

fn of_a_module(suite: Suite) {
    under_docker(suite, "escape-p1", guests::p1("escape"), 100);
}

fn of_a_component(suite: Suite) {
    under_docker(suite, "escape-p2", guests::p2("escape"), 60);
}

/// With a rootfs that can be written, in which the guest may make links of its own.
fn of_a_module_under_ctr(suite: Suite) {
    let bed = Bed::get(suite);
    volumes(bed, "escape-ctr");
    let flags = [
        "--mount",
        "type=bind,src=/srv/escape-ctr/data,dst=/data,options=rbind:rw",
        "--mount",
        "type=bind,src=/srv/escape-ctr/ro,dst=/ro,options=rbind:ro",
    ];
    let output = ctr_run(bed, &image(guests::p1("escape")), "escape-ctr", &flags, &[CANARY]).ok();
    assert_all_refused(&output, 100);
}

/// Else all of the above would say nothing.
fn the_guest_tells_an_escape(suite: Suite) {
    let bed = Bed::get(suite);
    volumes(bed, "escape-told");
    let flags = ["--volume", "/srv:/srv", "--volume", "/srv/escape-told/ro:/ro"];
    let output = Client::Docker.run(bed, &image(guests::p1("escape")), "escape-told", &flags, &[CANARY]).run().ok();
    for attempt in ["canary by its absolute path", "create in /ro", "remove in /ro"] {
        assert!(output.stdout.contains(&format!("{attempt}: ESCAPED")), "{attempt}\n{output}");
    }
}
