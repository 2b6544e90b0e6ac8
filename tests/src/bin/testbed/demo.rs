//! A guest from its source to its output, in the commands that a user would type.

use std::fs;

use anyhow::{Context, Result, ensure};
use lighter_tests::{Bed, Image, PLATFORM, RUNTIME, Suite, guests};

const IMAGE: &str = "docker.io/library/hello:latest";

/// Shows it on every suite.
pub(crate) fn run() -> Result<()> {
    let guest = guests::p2("hello");
    println!(
        "# hello.wasm: tests/guests/rust/src/bin/hello.rs, by cargo build --target wasm32-wasip2; {} bytes",
        guest.len()
    );
    println!("# hello.tar: an image for {PLATFORM} with nothing but it: FROM scratch, COPY, ENTRYPOINT");
    let archive = Image::wasm(IMAGE, guest).to_tar();
    for suite in Suite::ALL {
        let bed = Bed::fresh(suite);
        bed.start_docker();
        fs::write(bed.path("/tmp/hello.tar"), &archive).context("put hello.tar into the bed")?;
        let versions = bed.sh("containerd --version; docker --version").try_run()?.stdout;
        println!("\n# Debian {suite}: {}", versions.trim_end().replace('\n', ", "));
        for line in [
            "ctr images import --all-platforms hello.tar".to_owned(),
            format!("ctr run --rm --runtime {RUNTIME} --platform {PLATFORM} {IMAGE} h"),
            "docker load --input hello.tar".to_owned(),
            format!("docker run --rm --runtime {RUNTIME} --platform {PLATFORM} hello"),
        ] {
            println!("$ {line}");
            let output = bed.sh(&format!("cd /tmp; {line}")).try_run()?;
            print!("{}{}", output.stdout, output.stderr);
            ensure!(output.status == 0, "it ended with exit code {}; the daemons say:\n{}", output.status, bed.logs());
        }
    }
    Ok(())
}
