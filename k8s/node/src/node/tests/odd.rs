//! Nodes that are not as one would expect: what is kept of them, and what is refused.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{
    Bench,
    bench::{V2, V3, cases, put},
};

const CONFIG: &str = "/etc/containerd/config.toml";
/// Configurations without a handler: the one that Debian's package of 1.7 brings, and none.
const DEBIAN: &str = "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n";

/// A node of this case, with another text in its configuration; without one, with no file.
fn bench(name: &str, text: Option<&str>) -> Bench {
    let mut case = cases().into_iter().find(|case| case.name == name).unwrap();
    match text {
        Some(text) => case.files[0].1 = text.to_owned(),
        // A folder of that name is what tells the distribution.
        None => case.files[0].0 = "/etc/containerd/certs.d/none".to_owned(),
    }
    Bench::new(case)
}

#[test]
fn configurations_of_every_make_are_added_to_and_put_back() {
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let commented = format!("# top\n{V2}\n# between\n[debug] # behind\n  # inside\n  level = \"info\"\n# end");
    let inline = "version = 2\nplugins.\"io.containerd.grpc.v1.cri\" = { sandbox_image = \"mine\" }\n";
    let table = [
        ("containerd 1.7", Some(DEBIAN.to_owned())),
        ("containerd 1.7", None),
        ("containerd 1.7", Some("version = 2".to_owned())),
        ("containerd 1.7", Some(crlf(V2))),
        ("containerd 1.7", Some(crlf(DEBIAN))),
        ("containerd 1.7", Some(commented)),
        ("containerd 1.7", Some(inline.to_owned())),
        ("containerd 1.7", Some(format!("imports = [\"conf.d/*.toml\"]\n{V2}"))),
        ("containerd 2.0", Some(DEBIAN.to_owned())),
        ("containerd 2.1", None),
        ("containerd 2.1", Some(format!("imports = [\"conf.d/*.toml\", \"more.toml\"]\n{V3}"))),
        ("containerd 2.1", Some(crlf(V3))),
        ("containerd 2.2", None),
        ("containerd 2.2", Some(format!("imports = [\"conf.d/*.toml\"]\n{V3}"))),
    ];
    for (name, text) in table {
        let bench = bench(name, text.as_deref());
        let more = Path::new("/etc/containerd/more.toml");
        put(&bench.fake.host, more, "version = 3\n[debug]\nlevel = \"debug\"\n");
        bench.fake.known.replace(bench.fake.runtimes());
        let (before, known) = (bench.tree(), bench.fake.known.borrow().clone());
        assert_eq!(known.as_deref(), Some(&["runc".to_owned()][..]), "{name}: {text:?}");
        let report = bench.install(0).unwrap_or_else(|error| panic!("{name}: {text:?}: {error}"));
        assert!(report.ready, "{name}: {text:?}: {report:?}");
        let known = bench.fake.known.borrow().clone().unwrap();
        assert_eq!(known, ["lighter", "lighter-wamr", "lighter-wasmtime", "runc"], "{name}: {text:?}");
        assert!(bench.status().ready, "{name}: {text:?}: {:?}", bench.status());
        bench.uninstall().unwrap();
        assert_eq!(bench.tree(), before, "{name}: {text:?}");
    }
}

#[test]
fn what_can_not_be_added_to_is_told_and_left_alone() {
    let table = [
        ("containerd 1.7", "", "/etc/containerd/config.toml is of configuration version 1"),
        ("containerd 1.7", "[plugins]\n", "configuration version 1; there are handlers in 2, 3 and 4"),
        ("containerd 1.7", "version = 1\n[plugins.cri]\n", "see `containerd config migrate`"),
        ("containerd 2.2", "version = 5\n", "configuration version 5"),
        ("containerd 1.7", "version = 2\nplugins = 7\n", "was broken already"),
        ("containerd 1.7", "version = 2\nversion = 2\n", "was broken already"),
    ];
    for (name, text, expected) in table {
        let bench = bench(name, Some(text));
        let before = bench.tree();
        let error = bench.install(0).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!((bench.tree(), bench.fake.restarts.get()), (before, 0), "{text}");
    }
}

/// Some distributions keep the file elsewhere, and a link to it where containerd looks.
#[test]
fn a_link_to_the_configuration_stays_one() {
    let bench = bench("containerd 1.7", Some(V2));
    let root = bench.root.path();
    fs::create_dir_all(root.join("var/lib/node")).unwrap();
    fs::rename(root.join(&CONFIG[1..]), root.join("var/lib/node/config.toml")).unwrap();
    symlink("../../var/lib/node/config.toml", root.join(&CONFIG[1..])).unwrap();
    let before = bench.tree();
    assert!(bench.install(0).unwrap().ready);
    assert!(root.join(&CONFIG[1..]).is_symlink());
    assert!(fs::read_to_string(root.join("var/lib/node/config.toml")).unwrap().contains("runtimes.lighter-wamr"));
    bench.uninstall().unwrap();
    assert_eq!(bench.tree(), before);
    // To nowhere: who knows what it was for.
    fs::remove_file(root.join("var/lib/node/config.toml")).unwrap();
    let before = bench.tree();
    let error = bench.install(0).unwrap_err().to_string();
    assert!(error.contains("read /etc/containerd/config.toml: it is a link to what isn't there"), "{error}");
    assert_eq!(bench.tree(), before);
}

/// A newer containerd wants other places and other lines: the next run of the same programs brings them.
#[test]
fn an_installation_follows_its_containerd() {
    let mut bench = bench("containerd 1.7", Some(V2));
    let before = bench.tree();
    bench.install(0).unwrap();
    let text = |bench: &Bench, path: &str| bench.fake.host.read_text(Path::new(path)).unwrap().unwrap();
    assert!(text(&bench, CONFIG).contains("runtime_type = \"io.containerd.wamr.v1\""));
    for (version, path) in [((2, 1), "/etc/containerd/lighter.toml"), ((2, 2), "/etc/containerd/lighter.toml")] {
        bench.fake.version = version;
        let report = bench.install(0).unwrap();
        assert!(report.ready, "{version:?}: {report:?}");
        let ours = text(&bench, path);
        assert!(ours.contains("runtime_type = \"io.containerd.runc.v2\"") && !ours.contains(".v1\"\n"), "{ours}");
        assert!(ours.contains("runtime_path = \"/opt/lighter/bin/containerd-shim-wamr-v1\""), "{ours}");
    }
    bench.fake.version = (1, 7);
    let report = bench.install(0).unwrap();
    assert!(report.ready && report.changed, "{report:?}");
    assert!(text(&bench, CONFIG).contains("runtime_type = \"io.containerd.wamr.v1\""));
    bench.uninstall().unwrap();
    assert_eq!(bench.tree(), before);
}
