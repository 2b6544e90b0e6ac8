//! The installer's image: from scratch, with the programs of an installation.

use std::fs;

use lighter_tests::{PROGRAMS, Suite, installer_image, is_static, on_every_suite};

use crate::bench::{install, installer, node, traces};

on_every_suite!(it_runs_from_scratch_and_installs_what_it_holds);

const NAME: &str = "ghcr.io/lighter-project/lighter-node:test";

fn it_runs_from_scratch_and_installs_what_it_holds(suite: Suite) {
    let bed = node(suite);
    let image = installer_image(NAME, &bed.path("/usr/local/bin")).expect("the programs");
    bed.import(&image);
    for program in PROGRAMS {
        let bytes = fs::read(bed.path(format!("/usr/local/bin/{program}"))).expect("a program");
        assert!(is_static(&bytes), "{program} has to run where there is nothing else");
        let asks = if program.starts_with("containerd-shim") { "-v" } else { "--version" };
        let ran = bed.ctr(&["run", "--rm", NAME, "v", &format!("/bin/{program}"), asks]).run().ok();
        assert!(ran.stdout.starts_with(program), "{ran}");
    }
    // What `make install` left with all the rest brings the same.
    let before = traces(&bed);
    bed.sh("mkdir /tmp/image").run().ok();
    for program in PROGRAMS {
        bed.sh(&format!("ln /usr/local/bin/{program} /tmp/image/ || cp /usr/local/bin/{program} /tmp/image/"))
            .run()
            .ok();
    }
    let from_image = installer(&bed, &["install", "--from", "/tmp/image"]).run().ok();
    assert!(from_image.stdout.contains("lighter, lighter-wasmtime, lighter-wamr"), "{from_image}");
    install(&bed);
    installer(&bed, &["uninstall"]).run().ok();
    assert_eq!(traces(&bed), before);
}
