use std::process::ExitCode;

use indicatif::HumanBytes;
use lighter_oci::image::{self, Format};
use oci_spec::image::Descriptor;
use serde::Serialize;

use crate::{
    output::{Output, short},
    store::Store,
};

/// List the images of the store
#[derive(clap::Args)]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Row {
    reference: String,
    /// `rootfs`, `artifact`, `layer`, or `unknown` for what Lighter can't run.
    format: &'static str,
    /// Of what Lighter would run.
    platform: String,
    digest: String,
    /// Bytes of what is here.
    size: u64,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let store = Store::open()?;
        let mut rows = Vec::new();
        for (reference, root) in store.list()? {
            rows.push(row(&store, reference, &root).await);
        }
        output.result(&rows, |rows| table(rows));
        Ok(ExitCode::SUCCESS)
    }
}

async fn row(store: &Store, reference: String, root: &Descriptor) -> Row {
    // Images for others, and damaged ones, are listed too: that is how they get removed.
    let (format, platform) = match image::resolve(store, root).await {
        Ok(image) => (name(image.format), image.platform),
        Err(_) => ("unknown", "unknown".to_owned()),
    };
    let size = store.graph(root).map_or(0, |graph| graph.size());
    Row { reference, format, platform, digest: root.digest().to_string(), size }
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Rootfs => "rootfs",
        Format::Artifact => "artifact",
        Format::Layer => "layer",
    }
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = ["REFERENCE", "FORMAT", "PLATFORM", "DIGEST", "SIZE"].map(str::to_owned);
    let cells: Vec<[String; 5]> = std::iter::once(head)
        .chain(rows.iter().map(|row| {
            let size = HumanBytes(row.size).to_string();
            [row.reference.clone(), row.format.to_owned(), row.platform.clone(), short(&row.digest).to_owned(), size]
        }))
        .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(width);
    let line = |row: &[String; 5]| {
        let padded: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}   ")).collect();
        padded + &row[4]
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |reference: &str| Row {
            reference: reference.to_owned(),
            format: "artifact",
            platform: "wasip1/wasm".to_owned(),
            digest: format!("sha256:{}", "a".repeat(64)),
            size: 2048,
        };
        let table = table(&[row("docker.io/library/hello:latest"), row("r.test/a:1")]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        let at: Vec<_> = lines.iter().map(|line| line.find("wasip1").or(line.find("PLATFORM")).unwrap()).collect();
        assert!(at.iter().all(|column| *column == at[0]), "{table}");
        assert!(lines[1].ends_with("sha256:aaaaaaaaaaaa   2.00 KiB"), "{table}");
        assert_eq!(super::table(&[]), "");
    }
}
