//! `make scale`: what a cluster would do with what one node was measured to do.
//!
//! A simulation, not a measurement. `make bench`'s figures go in, and assumptions that are named as such
//! (`assumptions.toml`); `docs/scale.md` says what comes out. Knows no daemon and starts none.

mod assumptions;
mod chance;
mod cluster;
mod compiler;
mod document;
mod figures;
mod network;
mod plot;
mod processor;
mod scenario;
mod simulation;
mod validation;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Parser;
use lighter_tests::checkout;
use serde_json::json;

use crate::{assumptions::Assumptions, figures::Figures};

/// Cold starts of many pods on one to a thousand nodes, simulated.
#[derive(Parser)]
#[command(
    name = "scale",
    version,
    after_help = "Examples:
  scale                                             the figures that are kept, as docs/scale.md shows them
  scale --bench target/bench.json                   those of a bench of your own
  scale --assume cores=16 --assume pods-per-node=50 another cluster
  scale --json scale.json                           every row

The same figures, assumptions and seed give the same tables."
)]
struct Arguments {
    /// Take figures from what `bench --json` wrote
    #[arg(long, value_name = "FILE")]
    bench: Option<PathBuf>,
    /// Measure what compilations take with this lighter-compile, some minutes
    #[arg(long, value_name = "PROGRAM")]
    compiler: Option<PathBuf>,
    /// Assume this; may be given several times. assumptions.toml lists the keys
    #[arg(long, value_name = "KEY=VALUE")]
    assume: Vec<String>,
    /// Write figures, assumptions and all rows there as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the figures, and bring docs/scale.md up to date
    #[arg(long, conflicts_with = "assume")]
    update: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let assumptions = Assumptions::with(&arguments.assume)?;
    let mut figures = Figures::kept()?;
    if let Some(path) = &arguments.bench {
        let json =
            fs::read_to_string(path).with_context(|| format!("read {}; `make bench` writes it", path.display()))?;
        figures.measured_by_bench(&json).with_context(|| path.display().to_string())?;
    }
    if let Some(program) = &arguments.compiler {
        figures.compilations = compiler::measure(program)?;
    }
    let rows = scenario::run(&figures, &assumptions)?;
    let tables = document::tables(&figures, &assumptions, &rows)?;
    tables.iter().for_each(|(_, table)| println!("{table}"));
    if let Some(path) = &arguments.json {
        write_json(path, &json!({ "figures": figures, "assumptions": assumptions, "rows": rows }))?;
    }
    if arguments.update {
        write_json(&checkout().join("tests/src/bin/scale/figures.json"), &figures)?;
        let path = checkout().join("docs/scale.md");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        write(&path, &document::fill(text, &tables)?)?;
        write(&path.with_extension("svg"), &document::svg(&rows))?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write(path, &(serde_json::to_string_pretty(value).context("encode")? + "\n"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_tables() {
        let assumptions = Assumptions::with(&[]).expect("assumptions");
        let figures = Figures::kept().expect("figures");
        let rows = scenario::run(&figures, &assumptions).expect("simulation");
        let tables = document::tables(&figures, &assumptions, &rows).expect("tables");
        let path = checkout().join("docs/scale.md");
        let text = fs::read_to_string(&path).expect("docs/scale.md");
        let expected = document::fill(text.clone(), &tables).expect("marks");
        assert!(text == expected, "docs/scale.md is out of date: LIGHTER_UPDATE=1 make scale");
        let svg = fs::read_to_string(path.with_extension("svg")).expect("docs/scale.svg");
        assert!(svg == document::svg(&rows), "docs/scale.svg is out of date: LIGHTER_UPDATE=1 make scale");
    }
}
