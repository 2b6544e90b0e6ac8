//! Which engine runs a container: whoever may say it, in their order, and what is told of a choice that can't be.
//!
//! A component tells where it went: WAMR has none of it, Wasmtime runs it.

use lighter_tests::{Bed, Image, Output, PLATFORM, RUNTIME, Suite, guests, on_every_suite};

on_every_suite! {
    the_first_who_says_something_chooses,
    by_dockers_configuration,
    what_can_not_be_chosen,
    what_an_engine_can_not_run,
    a_runner_that_is_not_installed,
}

/// The node's configuration.
const NODE: &str = "/etc/lighter/config.toml";
/// A file for the options of a runtime.
const OPTIONS: &str = "/srv/options.toml";

/// Runs the guest of `image` by `runtime`, with the node's and the runtime's configuration as given.
#[track_caller]
fn run(bed: &Bed, image: &Image, runtime: &str, flags: &[&str], node: &str, options: &str) -> Output {
    bed.sh("mkdir -p /etc/lighter; cat >/etc/lighter/config.toml").stdin(node).run().ok();
    bed.sh(&format!("cat >{OPTIONS}")).stdin(options).run().ok();
    let common = ["run", "--rm", "--platform", PLATFORM, "--runtime", runtime];
    let named = if options.is_empty() { vec![] } else { vec!["--runtime-config-path", OPTIONS] };
    let ran = bed.ctr(&[&common[..], &named, flags, &[image.name(), "choice"]].concat()).run();
    bed.assert_gone("choice");
    ran
}

fn the_first_who_says_something_chooses(suite: Suite) {
    let bed = Bed::fresh(suite);
    let component = Image::wasm("docker.io/library/choice:latest", guests::p2("hello"));
    bed.import(&component);
    let (wamr, wasmtime) = (r#"engine = "wamr""#, r#"engine = "wasmtime""#);
    let by = |engine| format!("run.lighter.engine={engine}");
    let (by_wamr, by_wasmtime) = (by("wamr"), by("wasmtime"));
    // The runtime, the annotation, the node's configuration, the runtime's options, and who gets the guest.
    let table = [
        (RUNTIME, "", "", "", "wasmtime"),
        (RUNTIME, "", wamr, "", "wamr"),
        (RUNTIME, "", "cache-size = \"1GiB\"", wamr, "wamr"),
        (RUNTIME, "", wamr, wasmtime, "wasmtime"),
        (RUNTIME, "", wamr, "systemd-cgroup = false", "wamr"),
        ("io.containerd.wamr.v1", "", "", "", "wamr"),
        ("io.containerd.wamr.v1", "", wasmtime, wasmtime, "wamr"),
        ("io.containerd.wasmtime.v1", "", wamr, wamr, "wasmtime"),
        (RUNTIME, &by_wamr, "", "", "wamr"),
        ("io.containerd.wamr.v1", &by_wasmtime, wamr, wamr, "wasmtime"),
    ];
    for (runtime, annotation, node, options, expected) in table {
        let flags = if annotation.is_empty() { vec![] } else { vec!["--annotation", annotation] };
        let ran = run(&bed, &component, runtime, &flags, node, options);
        let row = format!("{runtime} {annotation:?} {node:?} {options:?}\n{ran}");
        match expected {
            "wasmtime" => assert!(ran.status == 0 && ran.stdout == "hello from wasm\n", "{row}"),
            _ => assert!(ran.status != 0 && ran.stderr.contains("wamr can't run this component"), "{row}"),
        }
    }
    // And what WAMR can run, it does.
    let module = Image::wasm("docker.io/library/choice-module:latest", guests::p1("hello"));
    bed.import(&module);
    let ran = run(&bed, &module, RUNTIME, &["--annotation", &by_wamr], "", "").ok();
    assert_eq!(ran.stdout, "hello from wasm\n");
}

fn by_dockers_configuration(suite: Suite) {
    let bed = Bed::fresh(suite);
    bed.sh(&format!("echo 'engine = \"wamr\"' >{OPTIONS}")).run().ok();
    let runtimes = serde_json::json!({
        "small": {"runtimeType": RUNTIME, "options": {"ConfigPath": OPTIONS}},
        "usual": {"runtimeType": RUNTIME},
        "named": {"runtimeType": "io.containerd.wamr.v1"},
    });
    let path = bed.path("/etc/docker/daemon.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).expect("Docker's configuration")).expect("JSON");
    config["runtimes"] = runtimes;
    std::fs::write(&path, config.to_string()).expect("write Docker's configuration");
    let image = Image::wasm("docker.io/library/choice:latest", guests::p2("hello"));
    bed.docker_load(&image);
    let run = |runtime: &str, flags: &[&str]| {
        let common = ["run", "--rm", "--platform", PLATFORM, "--network", "none", "--runtime", runtime];
        bed.docker(&[&common[..], flags, &[image.name()]].concat()).run()
    };
    for (runtime, flags) in [
        ("usual", &[][..]),
        ("small", &["--annotation", "run.lighter.engine=wasmtime"]),
        ("named", &["--annotation", "run.lighter.engine=wasmtime"]),
    ] {
        assert_eq!(run(runtime, flags).ok().stdout, "hello from wasm\n", "{runtime}");
    }
    for (runtime, flags) in
        [("small", &[][..]), ("named", &[]), ("usual", &["--annotation", "run.lighter.engine=wamr"])]
    {
        let refused = run(runtime, flags);
        assert!(
            refused.status != 0 && refused.stderr.contains("wamr can't run this component"),
            "{runtime}\n{refused}"
        );
    }
}

fn what_can_not_be_chosen(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = Image::wasm("docker.io/library/choice:latest", guests::p1("hello"));
    bed.import(&image);
    // The annotation, the node's configuration, the runtime's options, and what is told.
    let table: &[(&str, &str, &str, &[&str])] = &[
        ("run.lighter.engine=wamrr", "", "", &["annotation run.lighter.engine", "\"wamrr\"", "wasmtime, wasmedge"]),
        ("run.lighter.engine=native", "", "", &["run.lighter.engine asks for native", "is WebAssembly"]),
        ("run.lighter.engin=wamr", "", "", &["run.lighter.engin;", "did you mean run.lighter.engine?"]),
        ("run.lighter.http.timeout=soon", "", "", &["run.lighter.http.timeout=\"soon\"", "30s"]),
        ("", "engine = \"native\"", "", &[NODE, "\"native\""]),
        ("", "engin = \"wamr\"", "", &[NODE, "no setting \"engin\""]),
        ("", "engine = wamr", "", &[NODE, "line 1"]),
        ("", "", "engine = \"x\"", &[OPTIONS, "\"x\""]),
        ("", "", "cache-size = \"much\"", &[OPTIONS, "cache-size takes a size"]),
    ];
    for (annotation, node, options, tells) in table {
        let flags = if annotation.is_empty() { vec![] } else { vec!["--annotation", annotation] };
        let refused = run(&bed, &image, RUNTIME, &flags, node, options);
        let told = tells.iter().all(|text| refused.stderr.contains(text));
        assert!(refused.status != 0 && told, "{annotation:?} {node:?} {options:?}: {tells:?}\n{refused}");
    }
    // A file that is named must be there; the node's need not.
    bed.sh("rm -r /etc/lighter").run().ok();
    let flags = ["run", "--rm", "--platform", PLATFORM, "--runtime", RUNTIME];
    let named = ["--runtime-config-path", "/srv/nowhere.toml", image.name(), "choice"];
    let refused = bed.ctr(&[&flags[..], &named].concat()).run();
    assert!(refused.status != 0 && refused.stderr.contains("read configuration /srv/nowhere.toml"), "{refused}");
    bed.ctr(&[&flags[..], &[image.name(), "choice"]].concat()).run().ok();
    bed.assert_clean();
}

/// The sentence names an engine that can, and none where there is none.
fn what_an_engine_can_not_run(suite: Suite) {
    let bed = Bed::get(suite);
    let unknown = r#"(module (import "my" "import" (func)) (func (export "_start")))"#;
    let table = [
        ("component", guests::p2("hello"), "wamr", Some("wasmtime")),
        ("threads", guests::threads("sum"), "wasmtime", Some("wamr")),
        ("unknown", wat::parse_str(unknown).expect("a module"), "wasmtime", None),
        ("unknown", wat::parse_str(unknown).expect("a module"), "wamr", None),
    ];
    for (name, guest, engine, other) in table {
        let image = Image::wasm(&format!("docker.io/library/cannot-{name}:latest"), guest);
        bed.import(&image);
        let id = format!("cannot-{name}-{engine}");
        let engine = format!("run.lighter.engine={engine}");
        let flags = ["run", "--rm", "--platform", PLATFORM, "--runtime", RUNTIME, "--annotation", &engine];
        let refused = bed.ctr(&[&flags[..], &[image.name(), &id]].concat()).run();
        assert!(refused.status != 0, "{refused}");
        match other {
            Some(other) => {
                let advice = format!("{other} can run it: set the annotation run.lighter.engine={other}");
                assert!(refused.stderr.contains(&advice), "{refused}");
            }
            None => assert!(!refused.stderr.contains("can run it"), "{refused}"),
        }
        bed.assert_gone(&id);
    }
}

fn a_runner_that_is_not_installed(suite: Suite) {
    let bed = Bed::fresh(suite);
    let image = Image::wasm("docker.io/library/choice:latest", guests::p1("hello"));
    bed.import(&image);
    bed.sh("mkdir /srv/bin; cp -a /usr/local/bin/* /srv/bin/; rm /srv/bin/lighter-wamr").run().ok();
    let shim = "/srv/bin/containerd-shim-lighter-v1";
    run(&bed, &image, shim, &[], "", "").ok();
    let refused = run(&bed, &image, shim, &["--annotation", "run.lighter.engine=wamr"], "", "");
    let tells = ["engine wamr is not installed", "/srv/bin/lighter-wamr is missing", "installed are wasmtime"];
    assert!(refused.status != 0 && tells.iter().all(|text| refused.stderr.contains(text)), "{refused}");
}
