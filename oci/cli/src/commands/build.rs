//! `lighter build`: from a `.wasm` file to an image in the local store.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::{
    build::{self, Built, Format, Recipe, Source, Timestamp},
    inspect::{self, Binary, Entry},
    output::Output,
    reference::Reference,
    store::Store,
};

/// Make an image of a WebAssembly module or component, in the local store
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lighter build hello.wasm -t ghcr.io/me/hello:1
  lighter build app.wasm -t ghcr.io/me/app:1 --format image --env LOG=info --file ./public:/srv --cmd /srv
  tinygo build -target wasip1 -o - . | lighter build - -t hello

Formats:
  artifact  the module and what it imports, no entrypoint: for registries, `lighter run` and what else follows the CNCF
            layout; Docker from version 27 on runs it when given a command
  image     a container image whose module is a layer of its own, compiled once for all images that share it
  tar       a container image with the module as a file, as from a Dockerfile: runs on the oldest daemons

The same input gives the same digest. SOURCE_DATE_EPOCH (seconds since 1970) dates the image; without it, it has no date.")]
pub(crate) struct Args {
    /// The .wasm file; `-` is standard input
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Name of the image, such as ghcr.io/me/hello:1
    #[arg(short, long, value_name = "REF")]
    tag: Reference,
    /// How the image holds the module
    #[arg(long, value_enum, default_value = "artifact")]
    format: Format,
    /// The program and its fixed arguments, one at a time [default: /FILE.wasm]
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// An argument for when the user gives none; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// An environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The folder that the guest starts in
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    workdir: String,
    /// The user that the guest runs as
    #[arg(long, value_name = "UID[:GID]", default_value = "", hide_default_value = true)]
    user: String,
    /// A label of the container image; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// An annotation of the manifest, over what the module says of itself; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// A file or a folder to put into the image; may be repeated
    #[arg(long = "file", value_name = "SRC:DST")]
    files: Vec<Source>,
}

/// What was built.
#[derive(Serialize)]
struct Report {
    reference: String,
    digest: String,
    /// Bytes of all blobs.
    size: u64,
    format: Format,
    kind: lighter_oci::Kind,
    platform: String,
    config: String,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> Result<ExitCode> {
        if self.tag.digest().is_some() {
            bail!("-t {}: a digest is what the build gives, not what it takes; give a tag", self.tag);
        }
        let (name, bytes) = read(&self.file)?;
        let binary = Binary::parse(&name, &bytes)?;
        let recipe = Recipe {
            format: self.format,
            name: stem(&self.file, &self.tag),
            created: Timestamp::from_environment()?,
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            env: self.env,
            workdir: self.workdir,
            user: self.user,
            labels: self.label.into_iter().collect(),
            annotations: self.annotation.into_iter().collect::<BTreeMap<_, _>>(),
            files: self.files,
        };
        if let Entry::Missing(why) = inspect::entry(&binary) {
            output.note(&format!("note: {name} {why}; no engine will run it by itself"));
        }
        let store = Store::open()?;
        let built = build::build(&store, &binary, &bytes, &recipe).with_context(|| format!("build {}", self.tag))?;
        store.tag(&self.tag, built.manifest.clone())?;
        let report = Report::new(&self.tag, &binary, recipe.format, &built);
        output.result(&report, |report| text(report, &self.tag));
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    fn new(reference: &Reference, binary: &Binary, format: Format, built: &Built) -> Self {
        Self {
            reference: reference.to_string(),
            digest: built.manifest.digest().to_string(),
            size: built.size(),
            format,
            kind: binary.kind,
            platform: built.platform.clone(),
            config: built.config.digest().to_string(),
            layers: built
                .layers
                .iter()
                .map(|layer| Layer {
                    media_type: layer.media_type().to_string(),
                    digest: layer.digest().to_string(),
                    size: layer.size(),
                })
                .collect(),
        }
    }
}

fn text(report: &Report, reference: &Reference) -> String {
    let format = match report.format {
        Format::Artifact => "as an artifact",
        Format::Image => "as a layer of a container image",
        Format::Tar => "as a file in a container image",
    };
    let run = match report.format {
        Format::Artifact => format!("lighter run {reference}"),
        Format::Image | Format::Tar => {
            format!("docker run --rm --runtime io.containerd.lighter.v1 --platform {} {reference}", report.platform)
        }
    };
    format!(
        "{}@{}\n{} {format}, {}, {}\n\npush it:  lighter push {reference}\nrun it:   {run}",
        report.reference,
        report.digest,
        report.kind.noun(),
        report.platform,
        indicatif::HumanBytes(report.size),
    )
}

/// The bytes, and what messages call them.
fn read(file: &Path) -> Result<(String, Vec<u8>)> {
    if file == Path::new("-") {
        let name = "standard input".to_owned();
        let bytes = inspect::read(&name, io::stdin().lock(), 0)?;
        return Ok((name, bytes));
    }
    let name = file.display().to_string();
    let opened = File::open(file).with_context(|| format!("open {name}"))?;
    let metadata = opened.metadata().with_context(|| format!("read {name}"))?;
    if metadata.is_dir() {
        bail!("{name} is a folder; give the .wasm file in it");
    }
    let bytes = inspect::read(&name, opened, metadata.len())?;
    Ok((name, bytes))
}

/// What the module is called in the image: the file's name, or the repository's where there is no file.
fn stem(file: &Path, reference: &Reference) -> String {
    let file = file.file_name().map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "-");
    let name = file.unwrap_or_else(|| reference.repository().rsplit('/').next().unwrap_or_default().to_owned());
    name.strip_suffix(".wasm").unwrap_or(&name).to_owned()
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// `NAME=VALUE`: a bare name would take the value from this machine, and the image would differ on the next.
fn variable(text: &str) -> Result<String, String> {
    pair(text).map(|_| text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn reads_a_command_line() {
        let line = "build app.wasm -t me/app --format image --entrypoint /app.wasm --entrypoint -v --cmd --help --env A=b=c \
                    --label l= --annotation a=b --file x:/y";
        let args = Cli::try_parse_from(line.split_ascii_whitespace()).unwrap().args;
        assert_eq!(args.entrypoint, ["/app.wasm", "-v"]);
        assert_eq!((args.cmd, args.env), (vec!["--help".to_owned()], vec!["A=b=c".to_owned()]));
        assert_eq!(args.label, [("l".to_owned(), String::new())]);
        for wrong in
            ["build", "build a.wasm", "build a.wasm -t a --env A", "build a.wasm -t a --file x", "build a -t A:b:c"]
        {
            assert!(Cli::try_parse_from(wrong.split_ascii_whitespace()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_module_is_named_after_its_file_or_its_image() {
        let reference: Reference = "ghcr.io/me/hello:1".parse().unwrap();
        for (file, expected) in
            [("target/app.wasm", "app"), ("app.component.wasm", "app.component"), ("-", "hello"), ("x", "x")]
        {
            assert_eq!(stem(Path::new(file), &reference), expected);
        }
    }
}
