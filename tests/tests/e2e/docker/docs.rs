//! `docs/docker.md`: its commands do what it says, from the first to the last.

use std::fs;

use lighter_tests::{Bed, Image, OwnBed, Suite, checkout, guests, on_every_suite};

use crate::cli::Lighter;

on_every_suite! {
    commands_of_the_page,
}

/// What a reader has: the modules that the page builds an image of, the images that it takes from elsewhere, and curl.
#[track_caller]
fn prepare(bed: &Bed) -> Lighter<'_> {
    let folder = Lighter::new(bed);
    folder.write("server.wasm", guests::handler("serve"));
    folder.write("check.wasm", guests::p1("hello"));
    folder.write("public/page", "of the native one\n");
    bed.docker_load(&Image::wasm("ghcr.io/me/repl:1", guests::p1("cat")));
    let busybox = fs::read(bed.path("/bin/busybox")).expect("busybox of the bed");
    let image = Image::new("docker.io/library/busybox:latest").of_host().file("/bin/busybox", busybox);
    let image = image.symlink("/bin/wget", "busybox").symlink("/bin/httpd", "busybox").folder("/srv");
    bed.docker_load(&image.env("PATH", "/bin"));
    folder
}

/// The lines between "```KIND" and the next "```", of every block in its order, with the block's kind.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((kind, block.join("\n")));
        }
    }
    blocks
}

fn commands_of_the_page(suite: Suite) {
    let page = fs::read_to_string(checkout().join("docs/docker.md")).expect("the page");
    // Of its own: the page has ports that others have as well.
    let bed: OwnBed = Bed::fresh(suite);
    let folder = prepare(&bed);
    let mut commands = 0;
    for (kind, block) in blocks(&page) {
        match kind {
            "dockerfile" => folder.write("Dockerfile", block),
            "yaml" => folder.write("compose.yaml", block),
            "console" => {
                for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
                    run(&folder, command);
                    commands += 1;
                }
            }
            other => panic!("a block of {other:?}: what is to be done with it?"),
        }
    }
    assert!(commands > 20, "{commands} commands");
    for list in [&["ps", "--all", "--quiet"][..], &["network", "ls", "--quiet", "--filter", "type=custom"]] {
        assert_eq!(bed.docker(list).run().ok().stdout, "", "left by the page: docker {list:?}");
    }
    bed.assert_clean();
}

/// Runs a line as a reader would: at a terminal if it asks for one.
#[track_caller]
fn run(folder: &Lighter<'_>, command: &str) {
    let curl = "curl() { busybox wget -q -O - \"$1\"; }";
    let cmd = folder.sh(&format!("{curl}; {command}"));
    let output = if command.contains(" -it ") {
        let mut terminal = cmd.at_terminal(24, 80);
        terminal.wait_until_raw();
        // What reads, reads the end.
        if !terminal.is_over() {
            terminal.type_keys("\x04");
        }
        terminal.wait()
    } else {
        cmd.run()
    };
    let output = output.ok();
    // Those that show something do. A server may have nothing to log.
    let silent = ["-it", "docker rm", "docker network rm", "docker cp", "logs", "compose up", "compose down"];
    let shows = !silent.iter().any(|silent| command.contains(silent));
    assert!(!shows || !output.stdout.trim().is_empty() || !output.stderr.trim().is_empty(), "{output}");
    for (words, expected) in [
        ("curl http://127.0.0.1:8080/", "hello from wasi:http\n"),
        ("busybox wget", "hello from wasi:http\n"),
        ("/fetch?url", "of the native one\n"),
        ("docker exec web", "hello from wasm\n"),
        ("compose exec -T web", "hello from wasm\n"),
        ("compose exec -T files", "hello from wasi:http\n"),
    ] {
        assert!(!command.contains(words) || output.stdout == expected, "expected {expected:?}\n{output}");
    }
    if command.contains("Health.Status") {
        assert!(["healthy\n", "starting\n"].contains(&output.stdout.as_str()), "{output}");
    }
}
