//! A module of more than 30 MB, from a file to a registry and back, with little memory.

use std::{fs, time::Duration};

use lighter_tests::{Bed, Output, PLATFORM, RUNTIME, Suite, guests, on_every_suite};

use crate::cli::Lighter;

on_every_suite! {
    ruby_goes_around,
    ruby_runs_in_a_container,
}

/// Kibibytes of memory that a command may take for the module over what it takes for a tiny one.
const FEW: u64 = 8 * 1024;

/// And in all.
const BOUND: u64 = 64 * 1024;

/// The first start compiles it.
const FIRST_START: Duration = Duration::from_secs(240);

/// What `busybox time -v` counts as the most that was resident, in KiB.
#[track_caller]
fn peak(output: &Output) -> u64 {
    let line = output.stderr.lines().find(|line| line.contains("Maximum resident set size"));
    let number = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no peak in\n{output}"))
}

/// Runs it, and returns the most memory that it took, in KiB.
#[track_caller]
fn memory_of(lighter: &Lighter<'_>, arguments: &[&str]) -> u64 {
    peak(&lighter.program(&[&["busybox", "time", "-v", "lighter"], arguments].concat()).run().ok())
}

/// Takes an image from one store to another, by the registry and by an archive; returns the most memory that each
/// command took, in KiB.
#[track_caller]
fn carry(lighter: &Lighter<'_>, reference: &str) -> [(&'static str, u64); 4] {
    let push = memory_of(lighter, &["push", reference]);
    let other = Lighter::new(lighter.bed);
    let pull = memory_of(&other, &["pull", reference]);
    other.assert_whole();
    let save = memory_of(&other, &["save", reference, "-o", "saved.tar"]);
    let third = Lighter::new(lighter.bed);
    let load = memory_of(&third, &["load", "-i", &format!("{}/saved.tar", other.folder())]);
    third.assert_whole();
    assert_eq!(third.json(&["ls"]), lighter.json(&["ls"]));
    [("push", push), ("pull", pull), ("save", save), ("load", load)]
}

/// Puts the module into the folder without a copy in this process's memory.
fn put_ruby(lighter: &Lighter<'_>) {
    fs::copy(guests::big(), lighter.path("ruby.wasm")).expect("copy Ruby into the bed");
}

fn ruby_goes_around(suite: Suite) {
    let bed = Bed::get(suite);
    let tiny = Lighter::new(bed);
    let tiny_reference = format!("{}/big/tiny:1", bed.registry());
    tiny.build(&guests::wat("hello"), &tiny_reference, &[]);
    let baseline = carry(&tiny, &tiny_reference);

    let lighter = Lighter::new(bed);
    let reference = format!("{}/big/ruby:1", bed.registry());
    put_ruby(&lighter);
    let size = fs::metadata(lighter.path("ruby.wasm")).expect("Ruby").len();
    assert!(size > 30_000_000);
    lighter.run(&["build", "ruby.wasm", "-t", &reference]).ok();
    for ((command, peak), (_, tiny)) in carry(&lighter, &reference).into_iter().zip(baseline) {
        println!("lighter {command} on {suite}: {peak} KiB at most for {size} bytes, {tiny} KiB for a tiny module");
        assert!(peak < BOUND && peak < tiny + FEW, "{command}: {peak} KiB, and {tiny} KiB for a tiny module");
    }

    let other = Lighter::new(bed);
    let run =
        |arguments: &[&str]| other.cmd(&[&["run", &reference, "--"], arguments].concat()).timeout(FIRST_START).run();
    assert_eq!(run(&["-e", "puts 6*7"]).ok().stdout, "42\n");
    let script = "require 'json'; puts JSON.generate(ARGV); exit 3";
    assert_eq!(run(&["-e", script, "one", "two words"]).expect(3).stdout, "[\"one\",\"two words\"]\n");
}

fn ruby_runs_in_a_container(suite: Suite) {
    let bed = Bed::get(suite);
    let reference = format!("{}/big/container:1", bed.registry());
    let lighter = Lighter::new(bed);
    put_ruby(&lighter);
    lighter.run(&["build", "ruby.wasm", "-t", &reference, "--format", "image"]).ok();
    lighter.run(&["push", &reference]).ok();
    bed.ctr(&["images", "pull", "--plain-http", "--platform", PLATFORM, &reference]).run().ok();
    let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, &reference, "ruby"];
    let answer = bed.ctr(&[&run[..], &["/ruby.wasm", "-e", "puts 6*7"]].concat()).timeout(FIRST_START).run().ok();
    assert_eq!(answer.stdout, "42\n");
    bed.assert_gone("ruby");
}
