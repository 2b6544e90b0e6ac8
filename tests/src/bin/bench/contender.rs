//! Who competes, and with what.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use lighter_tests::{Bed, Image, PLATFORM, RUNTIME, checkout, guests, host_architecture};
use serde::Serialize;

/// The shim that runs nothing, as containerd looks for it.
const NOOP: &str = "containerd-shim-noop-v1";

const HELLO: &str = "docker.io/library/hello:latest";
const HELLO_COMPONENT: &str = "docker.io/library/hello-component:latest";
const HELLO_LAYER: &str = "docker.io/library/hello-layer:latest";
/// Ruby with its standard library: 30 MB in one module.
pub(crate) const LARGE: &str = "docker.io/library/large:latest";
const SLEEPER: &str = "docker.io/library/sleeper:latest";
const NATIVE: &str = "docker.io/library/native:latest";
const NATIVE_SLEEPER: &str = "docker.io/library/native-sleeper:latest";

/// A runtime with an image for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Contender {
    /// Lighter with a hello in Rust, a WASI 0.1 module.
    #[serde(rename = "lighter")]
    Lighter,
    /// Lighter with the same as a WASI 0.2 component.
    #[serde(rename = "lighter-component")]
    LighterComponent,
    /// Lighter with the first as a layer of its own, not in a root filesystem.
    #[serde(rename = "lighter-layer")]
    LighterLayer,
    /// Lighter with WAMR for an engine.
    #[serde(rename = "lighter-wamr")]
    LighterWamr,
    /// runc with a static program in C that returns at once.
    #[serde(rename = "runc")]
    Runc,
    /// A shim that runs nothing, with Lighter's image.
    #[serde(rename = "no-op")]
    NoOp,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Lighter => "Lighter",
            Contender::LighterComponent => "Lighter, component",
            Contender::LighterLayer => "Lighter, module as layer",
            Contender::LighterWamr => "Lighter, WAMR",
            Contender::Runc => "runc, static C",
            Contender::NoOp => "no-op shim",
        }
    }

    /// In names of containers.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Contender::Lighter => "lighter",
            Contender::LighterComponent => "component",
            Contender::LighterLayer => "layer",
            Contender::LighterWamr => "wamr",
            Contender::Runc => "runc",
            Contender::NoOp => "noop",
        }
    }

    /// Flags and image for `ctr run`.
    pub(crate) fn arguments(self) -> Vec<String> {
        self.arguments_with(match self {
            Contender::Lighter | Contender::LighterWamr | Contender::NoOp => HELLO,
            Contender::LighterComponent => HELLO_COMPONENT,
            Contender::LighterLayer => HELLO_LAYER,
            Contender::Runc => NATIVE,
        })
    }

    /// As [`Contender::arguments`], for a program that does nothing for ever.
    pub(crate) fn idle_arguments(self) -> Vec<String> {
        self.arguments_with(match self {
            Contender::Runc => NATIVE_SLEEPER,
            _ => SLEEPER,
        })
    }

    /// What [`Contender::arguments`] make it print.
    pub(crate) fn prints(self) -> &'static str {
        match self {
            Contender::Runc | Contender::NoOp => "",
            _ => "hello from wasm\n",
        }
    }

    fn arguments_with(self, image: &str) -> Vec<String> {
        let native = format!("linux/{}", host_architecture());
        let (runtime, platform) = match self {
            Contender::Runc => ("io.containerd.runc.v2", native.as_str()),
            Contender::NoOp => ("io.containerd.noop.v1", PLATFORM),
            _ => (RUNTIME, PLATFORM),
        };
        let engine: &[&str] = match self {
            Contender::LighterWamr => &["--annotation", "run.lighter.engine=wamr"],
            _ => &[],
        };
        let arguments = [&["--runtime", runtime, "--platform", platform], engine, &[image]].concat();
        arguments.into_iter().map(str::to_owned).collect()
    }
}

/// Puts images and the no-op shim into a bed.
pub(crate) fn install(bed: &Bed) -> Result<()> {
    let own = env::current_exe().context("find own executable")?;
    let noop = own.with_file_name(NOOP);
    ensure!(noop.is_file(), "no {}: build it by `cargo build --release -p lighter-tests --bins`", noop.display());
    fs::copy(&noop, bed.path("/usr/bin").join(NOOP)).context("copy the no-op shim into the bed")?;

    let native = native_program()?;
    let native = |name, words: &[&str]| {
        let image = Image::new(name).of_host();
        image.file("/native", native.clone()).entrypoint(words)
    };
    for image in [
        Image::wasm(HELLO, guests::p1("hello")),
        Image::wasm(HELLO_COMPONENT, guests::p2("hello")),
        Image::layer(HELLO_LAYER, guests::p1("hello")),
        Image::layer(LARGE, fs::read(guests::big()).context("read the large module")?).cmd(&["-e", ""]),
        Image::wasm(SLEEPER, guests::wat("sleep")),
        native(NATIVE, &["/native"]),
        native(NATIVE_SLEEPER, &["/native", "for ever"]),
    ] {
        bed.import(&image);
    }
    Ok(())
}

fn native_program() -> Result<Vec<u8>> {
    let source = checkout().join("tests/src/bin/bench/native.c");
    let program = env::temp_dir().join(format!("lighter-bench-native-{}", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-static", "-O2", "-s", "-o"])
        .args([&program, &source])
        .stdin(Stdio::null())
        .output()
        .context("run cc (on Debian: apt-get install build-essential)")?;
    ensure!(compiled.status.success(), "cc failed:\n{}", String::from_utf8_lossy(&compiled.stderr));
    let bytes = fs::read(&program).context("read the native program")?;
    fs::remove_file(&program).context("remove the native program")?;
    Ok(bytes)
}
