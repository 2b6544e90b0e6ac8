//! `lighter doctor`, `compile` and `cache`: what an administrator of a node does.

use std::fs;

use lighter_tests::{Bed, Image, Suite, guests, on_every_suite};
use serde_json::Value;

use super::{Lighter, assert_refused};
use crate::case::ctr_run;

on_every_suite! {
    doctor_finds_a_sound_node,
    doctor_finds_what_is_wrong,
    compiled_ahead_of_the_first_start,
    a_damaged_entry_is_found,
    the_cache_is_bounded,
    engines_are_listed_and_judged,
    the_nodes_configuration_holds_for_the_command_line,
}

/// Where containers' code is.
const CACHE: &str = "/var/lib/lighter/cache";

/// What doctor says, with its exit code.
#[track_caller]
fn doctor(lighter: &Lighter<'_>) -> (i32, Vec<(String, String, String)>) {
    let output = lighter.run(&["--json", "doctor"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"));
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().expect("findings").iter();
    let findings = findings.map(|finding| {
        assert!(finding["status"] == "ok" || finding["cure"].is_string(), "no cure: {finding}");
        (text(finding, "status"), text(finding, "check"), text(finding, "what") + "\n" + &text(finding, "cure"))
    });
    (output.status, findings.collect())
}

fn doctor_finds_a_sound_node(suite: Suite) {
    let bed = Bed::fresh(suite);
    bed.start_docker();
    let lighter = Lighter::new(&bed);
    let (status, findings) = doctor(&lighter);
    let problems: Vec<_> = findings.iter().filter(|(status, ..)| status == "problem").collect();
    assert!(status == 0 && problems.is_empty(), "{status} {problems:#?}");
    let version = if suite == Suite::Trixie { "1.7." } else { "2.1." };
    let containerd = findings.iter().find(|(_, check, what)| check == "containerd" && what.contains(version));
    assert!(containerd.is_some(), "{findings:#?}");
    // Docker 26 doesn't tell the shim which image a container is of.
    let docker =
        findings.iter().filter(|(status, check, _)| check.starts_with("docker") && status == "warning").count();
    assert_eq!(docker, usize::from(suite == Suite::Trixie), "{findings:#?}");
    let text = lighter.run(&["doctor"]).ok().stdout;
    assert!(text.contains("containerd") && text.lines().count() > 5, "{text}");
    // As anybody: it can see less, and says so rather than that something is wrong.
    let other = lighter
        .program(&["setpriv", "--reuid", "1000", "--clear-groups", "--regid", "1000", "lighter", "doctor"])
        .run();
    assert!(!other.stderr.contains("panicked") && other.stdout.contains("containerd"), "{other}");
}

fn doctor_finds_what_is_wrong(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    // What to break, what to mend it with, and a word of the finding.
    let table = [
        (
            "mv /etc/docker/daemon.json /tmp/kept; echo '{}' >/etc/docker/daemon.json",
            "mv /tmp/kept /etc/docker/daemon.json",
            "containerd-snapshotter",
        ),
        (
            "mv /etc/docker/daemon.json /tmp/kept; echo '{' >/etc/docker/daemon.json",
            "mv /tmp/kept /etc/docker/daemon.json",
            "daemon.json",
        ),
        (
            "mkdir -p /var/lib/lighter/cache; chmod 0777 /var/lib/lighter/cache",
            "chmod 0700 /var/lib/lighter/cache",
            CACHE,
        ),
        (
            "mkdir -p /etc/lighter; echo 'engin = \"wamr\"' >/etc/lighter/config.toml",
            "rm -r /etc/lighter",
            "/etc/lighter/config.toml: there is no setting \"engin\"",
        ),
        (
            "mkdir -p /etc/lighter; echo 'engine = \"wamrr\"' >/etc/lighter/config.toml",
            "rm -r /etc/lighter",
            "\"wamrr\", which there is not",
        ),
    ];
    for (breaks, mends, says) in table {
        lighter.sh(breaks).run().ok();
        let (status, findings) = doctor(&lighter);
        let found = findings.iter().any(|(status, _, what)| status == "problem" && what.contains(says));
        assert!(status == 1 && found, "{breaks}: {status} {findings:#?}");
        let text = lighter.run(&["doctor"]).expect(1).stdout;
        assert!(text.contains("problem") && text.contains(says), "{text}");
        lighter.sh(mends).run().ok();
        assert_eq!(doctor(&lighter).0, 0, "{mends}");
    }
    // A lone shim is no installation.
    lighter.sh("mkdir alone; cp /usr/local/bin/lighter alone/").run().ok();
    let alone = lighter.program(&["alone/lighter", "doctor"]).run().expect(1);
    for name in ["containerd-shim-lighter-v1", "lighter-wasmtime", "lighter-compile"] {
        assert!(alone.stdout.contains(name), "{alone}");
    }
}

/// The files of the cache, with their inodes: what was made again is another file.
fn entries(bed: &Bed) -> Vec<String> {
    let listed = bed.sh(&format!("find {CACHE} -name '*.cwasm' -printf '%p %i\\n' | sort")).run().ok();
    listed.stdout.lines().map(str::to_owned).collect()
}

fn compiled_ahead_of_the_first_start(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    let guest = guests::p2("hello");
    lighter.write("hello.wasm", &guest);
    lighter.run(&["compile", "hello.wasm"]).ok();
    let compiled = entries(&bed);
    assert!(!compiled.is_empty());
    let listed = lighter.run(&["cache", "ls"]).ok().stdout;
    assert!(listed.contains("wasmtime"), "{listed}");
    // By the shim, in an image that it never saw: the same code.
    let image = Image::wasm("docker.io/library/ahead:latest", guest);
    assert_eq!(ctr_run(&bed, &image, "ahead", &[], &[]).ok().stdout, "hello from wasm\n");
    assert_eq!(entries(&bed), compiled);

    lighter.build(&guests::p1("show"), "ahead:1", &[]);
    lighter.run(&["compile", "ahead:1"]).ok();
    let more = entries(&bed);
    assert!(more.len() > compiled.len(), "{more:?}");
    lighter.run(&["run", "ahead:1"]).ok();
    assert_eq!(entries(&bed), more);
    assert_refused(lighter.run(&["compile", "nowhere.wasm"]), &["nowhere.wasm"]);
}

fn a_damaged_entry_is_found(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    lighter.write("hello.wasm", guests::p1("hello"));
    lighter.run(&["run", "hello.wasm"]).ok();
    lighter.run(&["cache", "verify"]).ok();
    let entry = entries(&bed).first().and_then(|line| line.split(' ').next().map(str::to_owned)).expect("an entry");
    let path = bed.path(&entry);
    let mut bytes = fs::read(&path).expect("an entry");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&path, bytes).expect("damage it");
    let found = lighter.run(&["cache", "verify"]).expect(1);
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
    assert!(found.stdout.contains(&name[..12]) || found.stderr.contains(&name[..12]), "{name} is not in\n{found}");
    lighter.run(&["cache", "verify", "--repair"]);
    lighter.run(&["cache", "verify"]).ok();
    assert_eq!(lighter.run(&["run", "hello.wasm"]).ok().stdout, "hello from wasm\n");
}

fn the_cache_is_bounded(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    for (name, guest) in [("hello.wasm", guests::p1("hello")), ("show.wasm", guests::p1("show"))] {
        lighter.write(name, guest);
        lighter.run(&["run", name]).ok();
    }
    assert_eq!(entries(&bed).len(), lighter.json(&["cache", "ls"]).as_array().expect("entries").len());
    lighter.run(&["cache", "gc", "--max-size", "1KiB"]).ok();
    assert_eq!(entries(&bed), Vec::<String>::new());
    lighter.run(&["run", "hello.wasm"]).ok();
}

fn engines_are_listed_and_judged(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let listed = lighter.json(&["engines"]);
    let listed = listed["engines"].as_array().expect("engines");
    let named =
        |name: &str| listed.iter().find(|engine| engine["name"] == name).unwrap_or_else(|| panic!("{listed:?}"));
    assert_eq!(named("wasmtime")["default_by"], "default");
    assert_eq!(named("wasmtime")["compiler"], "lighter-compile");
    assert_eq!(named("wasmtime")["runs"], serde_json::json!(["modules", "components"]));
    assert_eq!(named("wamr")["runs"], serde_json::json!(["modules"]));
    assert!(named("wamr")["compiler"].is_null(), "{listed:?}");
    let text = lighter.run(&["engines"]).ok().stdout;
    assert!(text.starts_with("wasmtime ") && text.contains("(default)") && text.contains("interpreted"), "{text}");

    let judge = |bytes: Vec<u8>| {
        let judged = lighter.cmd(&["--json", "engines", "--for", "-"]).stdin(bytes).run();
        let verdict: Value = serde_json::from_str(&judged.stdout).unwrap_or_else(|error| panic!("{error}\n{judged}"));
        let runs = |name: &str| {
            let engines = verdict["engines"].as_array().expect("engines");
            engines.iter().find(|engine| engine["name"] == name).expect("an engine")["runs"] == true
        };
        (judged.status, runs("wasmtime"), runs("wamr"))
    };
    assert_eq!(judge(guests::p1("hello")), (0, true, true));
    assert_eq!(judge(guests::p2("hello")), (0, true, false));
    let unknown = wat::parse_str(r#"(module (import "my" "import" (func)) (func (export "_start")))"#);
    assert_eq!(judge(unknown.expect("a module")), (1, false, false));
    lighter.write("text.wat", "(module)");
    assert_refused(lighter.run(&["engines", "--for", "text.wat"]), &["text.wat", "text"]);
}

fn the_nodes_configuration_holds_for_the_command_line(suite: Suite) {
    let bed = Bed::fresh(suite);
    let lighter = Lighter::new(&bed);
    lighter.write("hello.wasm", guests::p2("hello"));
    lighter.sh("mkdir -p /etc/lighter; echo 'engine = \"wamr\"' >/etc/lighter/config.toml").run().ok();
    let listed = lighter.json(&["engines"]);
    let wamr = listed["engines"].as_array().and_then(|engines| engines.iter().find(|engine| engine["name"] == "wamr"));
    assert_eq!(wamr.expect("WAMR")["default_by"], "the configuration /etc/lighter/config.toml");
    let refused = lighter.run(&["run", "hello.wasm"]).expect(125);
    assert!(refused.stderr.contains("wamr can't run this component"), "{refused}");
    assert!(refused.stderr.contains("wasmtime can run it"), "{refused}");
    lighter.run(&["run", "--engine", "wasmtime", "hello.wasm"]).ok();
    assert_refused(lighter.run(&["compile", "hello.wasm"]), &["interprets modules", "nothing to compile"]);
    assert_eq!(doctor(&lighter).0, 0);
}
