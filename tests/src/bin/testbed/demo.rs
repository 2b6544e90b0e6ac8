//! A guest from its source to its output, in the commands that a user would type.

use std::fs;

use anyhow::{Context, Result, ensure};
use lighter_tests::{Bed, PLATFORM, RUNTIME, Suite, guests};

/// Shows it on every suite.
pub(crate) fn run() -> Result<()> {
    let guest = guests::p2("hello");
    println!(
        "# hello.wasm: tests/guests/rust/src/bin/hello.rs, by cargo build --target wasm32-wasip2; {} bytes",
        guest.len()
    );
    for suite in Suite::ALL {
        let bed = Bed::fresh(suite);
        bed.start_docker();
        let image = format!("{}/hello:1", bed.registry());
        fs::write(bed.path("/tmp/hello.wasm"), &guest).context("put hello.wasm into the bed")?;
        let versions = bed.sh("containerd --version; docker --version").try_run()?.stdout;
        println!("\n# Debian {suite}: {}", versions.trim_end().replace('\n', ", "));
        for (why, lines) in [
            ("A module in a sandbox, without any daemon", vec!["lighter run hello.wasm".to_owned()]),
            (
                "The same as an image in a registry, in the format that every containerd and Docker takes",
                vec![format!("lighter build hello.wasm -t {image} --format tar"), format!("lighter push {image}")],
            ),
            (
                "By containerd",
                vec![
                    format!("ctr images pull --plain-http --platform {PLATFORM} {image} >/dev/null"),
                    format!("ctr run --rm --runtime {RUNTIME} --platform {PLATFORM} {image} h"),
                ],
            ),
            ("By Docker", vec![format!("docker run --rm --quiet --runtime {RUNTIME} --platform {PLATFORM} {image}")]),
        ] {
            println!("# {why}");
            for line in lines {
                println!("$ {line}");
                let output = bed.sh(&format!("cd /tmp; {line}")).try_run()?;
                print!("{}{}", output.stdout, output.stderr);
                ensure!(
                    output.status == 0,
                    "it ended with exit code {}; the daemons say:\n{}",
                    output.status,
                    bed.logs()
                );
            }
        }
    }
    Ok(())
}
