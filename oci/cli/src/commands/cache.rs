//! `lighter cache`: what is in the cache of compiled code, whether it is sound, and room in it.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use indicatif::{HumanBytes, HumanDuration};
use lighter_oci::{Cache, Listed, Tier, What, quantity};
use serde::Serialize;

use crate::{output::Output, run};

/// Look at the cache of compiled code, check it, make room in it
///
/// With root, it is the node's, which the shim uses; without, your own.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Args {
    /// List the modules and the code that were made of them, used last first
    Ls,
    /// Read every file and compare it with its checksum
    ///
    /// Exits with 1 if one is damaged. Damaged code is never run in any case: who would start it makes it anew.
    Verify {
        /// Remove what is damaged
        #[arg(long)]
        repair: bool,
    },
    /// Remove what was used least recently until the rest fits
    #[command(after_help = "Example:\n  lighter cache gc --max-size 512MiB")]
    Gc {
        /// Bytes that may stay, of all engines and modules together
        #[arg(long, value_name = "SIZE", value_parser = bytes_or_none)]
        max_size: u64,
    },
}

/// A file of the cache.
#[derive(Debug, Serialize)]
struct Row {
    /// Of the module.
    digest: String,
    /// The engines that load it, and CPU and settings that it was made for; none for a module itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    /// `optimised` or `baseline` code, or a `module` from a layer.
    kind: &'static str,
    size: u64,
    /// Seconds since it was used.
    unused_seconds: u64,
}

#[derive(Debug, Serialize)]
struct Verified {
    checked: usize,
    damaged: Vec<Row>,
    repaired: bool,
}

#[derive(Debug, Serialize)]
struct Collected {
    removed: Vec<Row>,
    /// Bytes.
    freed: u64,
}

impl Args {
    pub(crate) fn run(self, output: &Output) -> Result<ExitCode> {
        let folder = run::cache_folder()?;
        let cache = Cache::open(&folder, Cache::NODE_BYTES)?;
        match self {
            Self::Ls => {
                let rows: Vec<Row> = cache.entries()?.iter().map(Row::new).collect();
                output.result(&rows, |rows| table(rows));
                Ok(ExitCode::SUCCESS)
            }
            Self::Verify { repair } => verify(&cache, repair, output),
            Self::Gc { max_size } => {
                let removed = cache.shrink(max_size)?;
                let freed = removed.iter().map(|entry| entry.size).sum();
                let collected = Collected { removed: removed.iter().map(Row::new).collect(), freed };
                output.result(&collected, |collected| {
                    format!("{} removed, {}", collected.removed.len(), HumanBytes(collected.freed))
                });
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn verify(cache: &Cache, repair: bool, output: &Output) -> Result<ExitCode> {
    let entries = cache.entries()?;
    let mut damaged = Vec::new();
    for entry in &entries {
        if !entry.is_sound().with_context(|| format!("read {}", entry.path.display()))? {
            if repair {
                entry.remove()?;
            }
            damaged.push(Row::new(entry));
        }
    }
    let verified = Verified { checked: entries.len(), repaired: repair, damaged };
    output.result(&verified, |verified| {
        let summary = format!("{} checked, {} damaged", verified.checked, verified.damaged.len());
        match (&verified.damaged[..], verified.repaired) {
            ([], _) => summary,
            (rows, true) => format!("{}\n{summary} and removed", table(rows)),
            (rows, false) => format!("{}\n{summary}; `lighter cache verify --repair` removes them", table(rows)),
        }
    });
    Ok(if verified.damaged.is_empty() || repair { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Row {
    fn new(entry: &Listed) -> Self {
        let (engine, kind) = match &entry.what {
            What::Code { fingerprint, tier: Tier::Optimised } => (Some(fingerprint.clone()), "optimised"),
            What::Code { fingerprint, tier: Tier::Baseline } => (Some(fingerprint.clone()), "baseline"),
            What::Module => (None, "module"),
        };
        Self {
            digest: format!("sha256:{}", entry.digest),
            engine,
            kind,
            size: entry.size,
            unused_seconds: SystemTime::now().duration_since(entry.used).unwrap_or_default().as_secs(),
        }
    }
}

/// One line a file, with a heading.
fn table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let engine = row.engine.clone().unwrap_or_else(|| "-".to_owned());
        let used = format!("{} ago", HumanDuration(Duration::from_secs(row.unused_seconds)));
        // As many digits as tell modules apart.
        let digest = row.digest.chars().take("sha256:".len() + 12).collect();
        [digest, engine, row.kind.to_owned(), HumanBytes(row.size).to_string(), used]
    };
    let heading = ["MODULE", "ENGINE", "KIND", "SIZE", "LAST USE"].map(str::to_owned);
    let lines: Vec<[String; 5]> = std::iter::once(heading).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max().unwrap_or_default();
    let widths: [usize; 5] = std::array::from_fn(width);
    let line = |cells: &[String; 5]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { quantity::bytes(text) }
}
