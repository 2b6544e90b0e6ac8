//! Reads libcontainer's version from the lock file, so that `--version` tells what is linked and nobody types it.

use std::{env, fs, path::Path};

fn main() {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let lock = Path::new(&manifest_dir).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = fs::read_to_string(&lock).expect("Cargo.lock is in the workspace's root");
    let version = text
        .split("[[package]]")
        .find(|p| p.contains("name = \"libcontainer\"\n"))
        .and_then(|p| p.lines().find_map(|l| l.strip_prefix("version = ")))
        .expect("libcontainer is locked");
    println!("cargo::rustc-env=LIGHTER_LIBCONTAINER_VERSION={}", version.trim_matches('"'));
}
