//! `lighter save`, `load`, `tag`, `ls`, `rm`, `gc`: what the store holds, and its way to other tools without a registry.

use lighter_tests::{Bed, ENTRYPOINT, Image, PLATFORM, RUNTIME, Suite, guests, on_every_suite};
use serde_json::json;

use super::{Lighter, assert_refused};

on_every_suite! {
    ctr_imports_what_was_saved,
    docker_loads_what_was_saved,
    what_others_saved_is_loaded,
    saved_twice_is_the_same,
    a_damaged_archive_is_refused,
    an_archive_with_other_paths_is_refused,
    names_and_what_they_lead_to,
    skopeo_reads_the_store,
}

const HELLO: &str = "hello from wasm\n";

/// Builds and saves it; returns the archive.
#[track_caller]
fn saved(lighter: &Lighter<'_>, reference: &str, format: &str) -> Vec<u8> {
    lighter.build(&guests::p1("hello"), reference, &["--format", format]);
    lighter.run(&["save", reference, "-o", "saved.tar"]).ok();
    lighter.read("saved.tar")
}

fn ctr_imports_what_was_saved(suite: Suite) {
    let bed = Bed::get(suite);
    for format in ["image", "tar"] {
        let reference = format!("docker.io/saved/for-ctr-{format}:1");
        let archive = saved(&Lighter::new(bed), &reference, format);
        bed.ctr(&["images", "import", "--platform", PLATFORM, "-"]).stdin(archive).run().ok();
        let id = format!("saved-{format}");
        let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, &reference, &id];
        assert_eq!(bed.ctr(&run).run().ok().stdout, HELLO, "{format}");
        bed.assert_gone(&id);
    }
}

fn docker_loads_what_was_saved(suite: Suite) {
    let bed = Bed::get(suite);
    // See docker_runs_what_lighter_pushed.
    let formats: &[&str] = if suite == Suite::Trixie { &["tar"] } else { &["image", "tar"] };
    for format in formats {
        let reference = format!("saved/for-docker-{format}:1");
        let archive = saved(&Lighter::new(bed), &reference, format);
        let loaded = bed.docker(&["load"]).stdin(archive).run().ok();
        assert!(loaded.stdout.contains(&reference), "{loaded}");
        let run = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, "--network", "none", &reference];
        assert_eq!(bed.docker(&run).run().ok().stdout, HELLO, "{format}");
    }
}

fn what_others_saved_is_loaded(suite: Suite) {
    let bed = Bed::get(suite);
    let name = "docker.io/others/hello:1";
    let image = Image::wasm(name, guests::p1("hello"));
    bed.import(&image);
    bed.docker_load(&image);
    let by_hand = Lighter::new(bed);
    by_hand.write("by-hand.tar", image.to_tar());
    // By the daemon, which `ctr` 2.x would leave it to, the archive isn't whole yet when `ctr` ends.
    let local = if suite == Suite::Trixie { "" } else { "--local" };
    let ways = [
        format!("ctr images export {local} --platform {PLATFORM} archive.tar {name}"),
        format!("docker save -o archive.tar {name}"),
        format!("cp {}/by-hand.tar archive.tar", by_hand.folder()),
        format!("gzip -c {}/by-hand.tar >archive.tar", by_hand.folder()),
    ];
    for way in ways {
        let lighter = Lighter::new(bed);
        lighter.sh(&way).run().ok();
        let loaded = lighter.run(&["load", "-i", "archive.tar"]);
        assert!(loaded.status == 0 && loaded.stdout.contains(name), "{way}: {loaded}");
        lighter.assert_whole();
        assert_eq!(lighter.run(&["run", name]).ok().stdout, HELLO, "{way}");
    }
    let lighter = Lighter::new(bed);
    lighter.sh(&format!("mkdir layout && tar -xf {}/by-hand.tar -C layout", by_hand.folder())).run().ok();
    lighter.run(&["load", "-i", "layout", "--tag", "of-a-folder:1"]).ok();
    assert_eq!(lighter.run(&["run", "of-a-folder:1"]).ok().stdout, HELLO);
}

fn saved_twice_is_the_same(suite: Suite) {
    let bed = Bed::get(suite);
    for format in ["artifact", "image", "tar"] {
        let (one, other) = (Lighter::new(bed), Lighter::new(bed));
        let archive = saved(&one, "twice:1", format);
        assert!(archive == saved(&other, "twice:1", format), "{format}");
        let piped = one.sh("lighter save twice:1 | sha256sum; sha256sum <saved.tar").run().ok().stdout;
        let sums: Vec<&str> = piped.lines().collect();
        assert_eq!(sums[0], sums[1], "{format}");
        let third = Lighter::new(bed);
        third.cmd(&["load"]).stdin(archive).run().ok();
        assert_eq!(third.json(&["ls"]), one.json(&["ls"]), "{format}");
    }
}

fn a_damaged_archive_is_refused(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let archive = saved(&lighter, "damaged:1", "artifact");
    let name = lighter.json(&["ls"])[0]["digest"].as_str().expect("a digest").replace("sha256:", "blobs/sha256/");
    let at = archive.windows(name.len()).position(|bytes| bytes == name.as_bytes()).expect("the manifest's header");
    let mut flipped = archive.clone();
    // In the manifest itself, behind its header of 512 bytes.
    flipped[at + 512 + 10] ^= 1;
    let other = Lighter::new(bed);
    for (damaged, says) in [
        (flipped, "sha256"),
        (archive[..archive.len() / 2].to_vec(), ""),
        (guests::p1("hello"), "archive"),
        (Vec::new(), ""),
    ] {
        assert_refused(other.cmd(&["load"]).stdin(damaged).run(), &[says]);
        other.assert_whole();
        assert_eq!(other.json(&["ls"]), json!([]));
    }
}

fn an_archive_with_other_paths_is_refused(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    saved(&lighter, "escaping:1", "artifact");
    // Beside the layout: a path that leads out, a link that does, a device.
    lighter.write("evil", "evil");
    let make = "mkdir layout; tar -xf saved.tar -C layout; ln -s /tmp layout/out; mknod layout/null c 1 3
                mkdir -p layout/a; cp evil layout/a/evil
                tar -cPf escaping.tar -C layout --transform 's,^a/evil,../../escaped,' . a/evil";
    lighter.sh(make).run().ok();
    let other = Lighter::new(bed);
    let archive = lighter.read("escaping.tar");
    // Whether it refuses or leaves out what is no part of a layout: nothing gets out.
    other.cmd(&["load"]).stdin(archive).run();
    other.assert_whole();
    let found = bed.sh("find / -xdev -name escaped -not -path '/proc/*' 2>/dev/null || true").run();
    assert_eq!(found.stdout, "");
    let kinds = other.sh("find store -not -type f -not -type d").run().ok();
    assert_eq!(kinds.stdout, "");
}

fn names_and_what_they_lead_to(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    assert_eq!(lighter.run(&["ls"]).ok().stdout, "");
    let digest = lighter.build(&guests::p1("hello"), "one:1", &[]);
    lighter.build(&guests::p2("hello"), "other:1", &[]);
    lighter.run(&["tag", "one:1", "me/two:2"]).ok();
    let names = |listed: &serde_json::Value| {
        let mut names: Vec<String> = listed
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| row["reference"].as_str().expect("a name").to_owned())
            .collect();
        names.sort();
        names
    };
    let listed = lighter.json(&["ls"]);
    assert_eq!(names(&listed), ["docker.io/library/one:1", "docker.io/library/other:1", "docker.io/me/two:2"]);
    let two = listed.as_array().and_then(|rows| rows.iter().find(|row| row["reference"] == "docker.io/me/two:2"));
    let two = two.expect("the new name");
    assert_eq!((&two["digest"], &two["format"]), (&digest.as_str().into(), &"artifact".into()));
    let table = lighter.run(&["ls"]).ok().stdout;
    assert!(table.contains("docker.io/me/two:2") && table.contains("artifact"), "{table}");

    lighter.run(&["rm", "one:1"]).ok();
    lighter.run(&["gc"]).ok();
    assert_eq!(lighter.run(&["run", "me/two:2"]).ok().stdout, HELLO);
    lighter.run(&["rm", "me/two:2", "other:1"]).ok();
    let removed = lighter.json(&["gc"]);
    assert!(removed["bytes"].as_u64().is_some_and(|bytes| bytes > 100_000), "{removed}");
    assert!(lighter.blobs().is_empty());

    let missing = lighter.run(&["rm", "one:1"]).expect(1);
    assert!(missing.stderr.contains("docker.io/library/one:1"), "{missing}");
    for arguments in [&["tag", "one:1", "a:1"][..], &["save", "one:1", "-o", "x.tar"]] {
        assert_refused(lighter.run(arguments), &["docker.io/library/one:1"]);
    }
}

/// It is an OCI image layout, to any tool.
fn skopeo_reads_the_store(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let name = "docker.io/library/layout:1";
    let digest = lighter.build(&guests::p1("hello"), name, &["--format", "tar"]);
    let inspect = "skopeo inspect --override-os wasi --override-arch wasm --format '{{.Digest}}'";
    let inspected = lighter.sh(&format!("{inspect} oci:store:{name}")).run().ok();
    assert_eq!(inspected.stdout.trim(), digest);
    // The entrypoint's path is the file's name.
    let config =
        lighter.sh(&format!("skopeo inspect --config --override-os wasi --override-arch wasm oci:store:{name}"));
    assert!(config.run().ok().stdout.contains(ENTRYPOINT));
}
