//! `make bench`: what Lighter costs, beside runc and beside a shim that runs nothing, all in one run.
//!
//! A figure without its neighbours says little on a machine that others use, so contenders take turns: never all of one
//! and then all of the next. Knows Lighter as a user does: as a runtime's name. See `contender.rs` for who competes.

mod budget;
mod client;
mod cold;
mod contender;
mod ctr_run;
mod http;
mod large;
mod machine;
mod memory;
mod pods;
mod report;
mod samples;
mod table;
mod throughput;
mod timed;

use std::{ffi::OsString, fs, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lighter_tests::{Bed, Suite};

use crate::{
    machine::Machine,
    report::{Report, SuiteReport},
};

/// What Lighter costs, beside runc and beside a shim that runs nothing.
///
/// Starts real daemons in namespaces of their own (see tests/README.md), measures in turns, and prints Markdown:
/// `ctr run` of a hello, tasks per second through containerd's API, what a task's phases take, memory of idle
/// containers, pods without a container, the very first start of a small and of a large module, and HTTP handlers under
/// load, each with its budget and whether that is met.
#[derive(Parser)]
#[command(
    name = "bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples (root; built by `cargo build --release -p lighter-tests --bins`):
  bench                                  all of it on containerd 1.7, some six minutes
  bench --suite both --json bench.json   on 1.7 and on 2.1, and every sample to a file
  bench --rounds 3 --tasks 8 --cold 1 --http-rounds 1    only to see whether it works
  bench --only http                      handlers of wasi:http only
  bench --only pods --suite forky        pods, also such as the daemon holds, which 1.7 has not

Figures of different runs compare by their ratios at most, better not at all. A quiet machine helps; the load is printed."
)]
struct Arguments {
    /// Whose containerd: trixie (1.7), forky (2.1) or both
    #[arg(long, default_value = "trixie")]
    suite: Suites,
    /// Times that each contender runs by `ctr run`; 20 or more for a figure to be shown to others
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = positive)]
    rounds: usize,
    /// Tasks of each contender for tasks per second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = positive)]
    tasks: usize,
    /// Starts with an emptied cache of compiled code
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    cold: usize,
    /// Times that each HTTP server is under load, in turns
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    http_rounds: usize,
    /// How many seconds each time
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    http_seconds: u64,
    /// Only this; may be given several times
    #[arg(long, value_name = "SECTION")]
    only: Vec<Section>,
    /// Write all figures and samples there as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Run a command, time it, and tell all of it as JSON. How `bench` times inside a bed.
    #[command(hide = true)]
    Time {
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Be an HTTP server without WebAssembly: the limit.
    #[command(hide = true)]
    Serve { address: SocketAddr },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    CtrRun,
    Throughput,
    Memory,
    Pods,
    Cold,
    Large,
    Http,
}

#[derive(Clone)]
struct Suites(Vec<Suite>);

impl FromStr for Suites {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(Suites(if name == "both" { Suite::ALL.to_vec() } else { vec![name.parse()?] }))
    }
}

fn positive(number: &str) -> Result<usize, String> {
    number.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a number above 0".to_owned())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.action {
        Some(Action::Time { command }) => return timed::run(command),
        Some(Action::Serve { address }) => return lighter_tests::http::hello(*address),
        None => {}
    }
    let machine = Machine::of_this()?;
    let suites = arguments.suite.0.iter().map(|suite| measure(*suite, &arguments)).collect::<Result<_>>()?;
    let report = Report { machine, suites };
    print!("{report}");
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report).context("encode the report")?;
        fs::write(path, json + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn measure(suite: Suite, arguments: &Arguments) -> Result<SuiteReport> {
    let progress = progress(suite)?;
    progress.set_message("making the bed");
    let bed = Bed::fresh(suite);
    timed::install(&bed)?;
    contender::install(&bed)?;
    let versions = machine::Versions::of(&bed)?;
    let wanted = |section| arguments.only.is_empty() || arguments.only.contains(&section);
    let round = Duration::from_secs(arguments.http_seconds);
    let report = SuiteReport {
        suite: suite.name(),
        versions,
        ctr_run: when(wanted(Section::CtrRun), || ctr_run::measure(&bed, arguments.rounds, &progress))?,
        throughput: when(wanted(Section::Throughput), || throughput::measure(&bed, arguments.tasks, &progress))?,
        memory: when(wanted(Section::Memory), || memory::measure(&bed, &progress))?,
        pods: when(wanted(Section::Pods), || pods::measure(&bed, &progress))?,
        cold: when(wanted(Section::Cold), || cold::measure(&bed, arguments.cold, &progress))?,
        large: when(wanted(Section::Large), || large::measure(&bed, arguments.cold, &progress))?,
        http: when(wanted(Section::Http), || http::measure(&bed, arguments.http_rounds, round, &progress))?,
    };
    progress.finish_and_clear();
    Ok(report)
}

fn when<T>(wanted: bool, measure: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    wanted.then(measure).transpose()
}

/// On stderr, where that is a terminal; else nothing.
fn progress(suite: Suite) -> Result<ProgressBar> {
    let style = "{prefix} {elapsed_precise} {wide_bar} {msg} {pos}/{len}";
    let style = ProgressStyle::with_template(style).context("progress bar")?;
    Ok(ProgressBar::new(0).with_style(style).with_prefix(suite.name()))
}
