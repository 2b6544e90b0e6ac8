//! `lighter inspect`: what an image or a file is, which engines can run it, what it would get; and the help.

use lighter_tests::{Bed, Suite, guests, on_every_suite};
use serde_json::Value;

use super::{Lighter, assert_refused};

on_every_suite! {
    a_module,
    a_component,
    an_image_of_each_format,
    an_image_of_a_registry,
    what_no_engine_can_run,
    what_is_no_module,
    every_command_has_help,
}

/// What it says of Wasmtime, which is installed.
#[track_caller]
fn wasmtime(inspected: &Value) -> &Value {
    let engines = inspected["module"]["engines"].as_array().unwrap_or_else(|| panic!("no engines in {inspected}"));
    let wasmtime = engines.iter().find(|engine| engine["name"] == "wasmtime").expect("Wasmtime is listed");
    assert!(wasmtime["version"].is_string(), "{wasmtime}");
    wasmtime
}

/// Whether it says that the binary can use this grant.
#[track_caller]
fn imports(inspected: &Value, what: &str) -> bool {
    let grants = inspected["module"]["grants"].as_array().expect("grants");
    let grant = grants.iter().find(|grant| grant["what"] == what).unwrap_or_else(|| panic!("no {what} in {grants:?}"));
    grant["imported"].as_bool().expect("yes or no")
}

fn a_module(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    lighter.write("hello.wasm", guests::p1("hello"));
    let inspected = lighter.json(&["inspect", "hello.wasm"]);
    assert_eq!(inspected["module"]["kind"], "module");
    assert_eq!(wasmtime(&inspected)["runs"], true, "{inspected}");
    assert!(!imports(&inspected, "TCP"));
    let imported = inspected["module"]["imports"].as_array().expect("imports");
    assert!(imported.iter().any(|item| item["name"] == "fd_write"), "{imported:?}");
    let text = lighter.run(&["inspect", "hello.wasm"]).ok().stdout;
    for part in ["wasi_snapshot_preview1", "fd_write", "_start", "wasmtime", "wamr"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let piped = lighter.cmd(&["inspect", "-"]).stdin(guests::p1("hello")).run().ok();
    assert!(piped.stdout.contains("fd_write"), "{piped}");
}

fn a_component(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    lighter.write("net.wasm", guests::p2("net"));
    let inspected = lighter.json(&["inspect", "net.wasm"]);
    assert_eq!(inspected["module"]["kind"], "component");
    assert_eq!(wasmtime(&inspected)["runs"], true, "{inspected}");
    assert!(imports(&inspected, "TCP") && imports(&inspected, "name lookup"));
    let text = lighter.run(&["inspect", "net.wasm"]).ok().stdout;
    for part in ["import wasi:sockets/tcp@0.2", "export wasi:cli/run@0.2"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let whole = lighter.run(&["inspect", "net.wasm", "--wit"]).ok().stdout;
    assert!(whole.contains("resource tcp-socket"), "{whole}");
}

fn an_image_of_each_format(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    let table =
        [("artifact", "artifact", "wasip1/wasm"), ("image", "layer", "wasi/wasm"), ("tar", "rootfs", "wasi/wasm")];
    for (format, known_as, platform) in table {
        let name = format!("docker.io/library/inspected:{format}");
        let digest = lighter.build(&guests::p1("hello"), &name, &["--format", format]);
        let inspected = lighter.json(&["inspect", &name]);
        let image = &inspected["image"];
        assert_eq!((&image["digest"], &image["format"]), (&digest.as_str().into(), &known_as.into()));
        assert_eq!((&image["platform"], &image["source"]), (&platform.into(), &"store".into()));
        assert!(image["size"].as_u64().is_some_and(|size| size > 10_000), "{image}");
        assert_eq!(wasmtime(&inspected)["runs"], true, "{inspected}");
        if format != "artifact" {
            assert_eq!(image["process"]["entrypoint"], serde_json::json!(["/app.wasm"]));
        }
        let text = lighter.run(&["inspect", &name]).ok().stdout;
        assert!(text.contains(&digest) && text.contains(platform), "{text}");
    }
}

fn an_image_of_a_registry(suite: Suite) {
    let bed = Bed::get(suite);
    for format in ["artifact", "tar"] {
        let reference = format!("{}/inspected/{format}:1", bed.registry());
        let lighter = Lighter::new(bed);
        let digest = lighter.build(&guests::p1("hello"), &reference, &["--format", format]);
        lighter.run(&["push", &reference]).ok();
        let other = Lighter::new(bed);
        let inspected = other.run(&["--json", "inspect", &reference]);
        let inspected: Value = serde_json::from_str(&inspected.stdout).expect("JSON");
        assert_eq!(
            (&inspected["image"]["digest"], &inspected["image"]["source"]),
            (&digest.into(), &"registry".into())
        );
        // It was looked at, not pulled.
        assert_eq!(other.json(&["ls"]), serde_json::json!([]));
    }
}

fn what_no_engine_can_run(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    let wat = |text: &str| wat::parse_str(text).expect("WAT");
    let table = [
        (wat(r#"(module (import "env" "f" (func)) (func (export "_start")))"#), "env.f", "env"),
        (wat(r#"(module (func (export "main")))"#), "_start", "_start"),
        (
            wat(r#"(component (import "acme:rocket/launch@1.0.0" (instance)))"#),
            "acme:rocket/launch@1.0.0",
            "wasi:cli/run",
        ),
    ];
    for (binary, why, refusal) in table {
        lighter.write("odd.wasm", &binary);
        let inspected = lighter.json(&["inspect", "odd.wasm"]);
        let engine = wasmtime(&inspected);
        assert!(engine["runs"] == false && engine["why_not"].to_string().contains(why), "{engine}");
        // And so it is.
        let run = lighter.run(&["run", "odd.wasm"]).expect(125);
        assert!(run.stderr.contains(refusal), "{run}");
    }
}

fn what_is_no_module(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    let hello = guests::p2("hello");
    let table: [(&str, &[u8], &str); 5] = [
        ("text.wat", b"(module)", "text"),
        ("native", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "native"),
        ("empty.wasm", b"", "empty"),
        ("half.wasm", &hello[..hello.len() / 2], "half.wasm"),
        // A vector of 4 Gi types, in a section of seven bytes.
        ("bomb.wasm", b"\0asm\x01\0\0\0\x01\x05\xff\xff\xff\xff\x0f", "bomb.wasm"),
    ];
    for (name, bytes, says) in table {
        lighter.write(name, bytes);
        assert_refused(lighter.run(&["inspect", name]), &[name, says]);
    }
    assert_refused(lighter.run(&["inspect", "/"]), &["folder"]);
    assert_refused(lighter.run(&["inspect", "127.0.0.1:9/nothing:1"]), &["127.0.0.1:9"]);
    assert_refused(lighter.run(&["inspect", "No Name"]), &["No Name"]);
}

fn every_command_has_help(suite: Suite) {
    let lighter = Lighter::new(Bed::get(suite));
    let help = lighter.run(&["--help"]).ok().stdout;
    for line in ["lighter run hello.wasm", "lighter build", "lighter push", "--json"] {
        assert!(help.contains(line), "no {line:?} in {help}");
    }
    let commands = [
        "build", "push", "pull", "inspect", "run", "save", "load", "tag", "ls", "rm", "gc", "compile", "cache",
        "doctor",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
        let own = lighter.run(&[command, "--help"]).ok().stdout;
        assert!(own.contains("Usage: lighter"), "{own}");
        let wrong = lighter.run(&[command, "--no-such-flag"]).expect(2);
        assert!(wrong.stdout.is_empty() && wrong.stderr.contains("--no-such-flag"), "{wrong}");
    }
    for command in ["build", "push", "pull", "inspect", "run", "save", "load", "tag", "rm", "compile", "doctor"] {
        let own = lighter.run(&[command, "--help"]).ok().stdout;
        assert!(own.contains(&format!("lighter {command} ")) && own.contains("Example"), "{own}");
    }
    assert!(lighter.run(&["--version"]).ok().stdout.starts_with("lighter "));
    lighter.run(&[]).expect(2);
}
