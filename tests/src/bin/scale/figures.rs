//! What was measured: `make bench`'s figures of one node, and what compilations take.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::compiler::Compilation;

/// Those that the documentation's tables are made from, as the last update left them.
const KEPT: &str = include_str!("figures.json");

/// One machine's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    pub(crate) lighter: Tasks,
    pub(crate) runc: Tasks,
    pub(crate) large: Large,
    pub(crate) memory: Vec<Memory>,
    pub(crate) compilations: Vec<Compilation>,
}

/// As `bench` writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) load: String,
    pub(crate) date: String,
}

/// As `bench` writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) containerd: String,
    pub(crate) runc: String,
    pub(crate) lighter: String,
}

/// A task's whole life with a daemon of its own: create, start, wait, delete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tasks {
    /// CPU time of all that takes part, in seconds: what the cores have for each task when they are busy.
    pub(crate) cpu_seconds: f64,
    /// What one at a time takes longer than that.
    pub(crate) wait_seconds: f64,
    /// The part of it until the task has started.
    pub(crate) starting: f64,
    /// Deciles of create and start, one at a time, over their mean.
    pub(crate) spread: Vec<f64>,
    /// As measured, one, two and eight at a time.
    pub(crate) per_second: [f64; 3],
}

/// The bench's large module, in seconds until started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Large {
    pub(crate) bytes: u64,
    pub(crate) first: f64,
    pub(crate) next: f64,
}

/// PSS of idle containers, daemons included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) contender: String,
    pub(crate) containers: usize,
    pub(crate) mebibytes_each: f64,
}

impl Figures {
    pub(crate) fn kept() -> Result<Self> {
        serde_json::from_str(KEPT).context("decode the figures that are kept")
    }

    /// Takes over what `bench --json` wrote, of its first suite.
    ///
    /// # Errors
    /// A section of the bench is not in it.
    pub(crate) fn measured_by_bench(&mut self, json: &str) -> Result<()> {
        let bench: bench::Report = serde_json::from_str(json).context("decode what bench wrote")?;
        let suite = bench.suites.into_iter().next().context("bench measured no suite")?;
        let lacks = |section| format!("bench left {section} out; run it without --only");
        let throughput = suite.throughput.with_context(|| lacks("throughput"))?;
        self.lighter = Tasks::of(&throughput, "lighter", bench.machine.cores)?;
        self.runc = Tasks::of(&throughput, "runc", bench.machine.cores)?;
        let large = suite.large.with_context(|| lacks("the large module"))?;
        let started = |what| {
            let starts = large.starts.iter().find(|starts| starts.what == what);
            starts.map(|starts| median(&starts.until_started) / 1e3).with_context(|| format!("no starts {what:?}"))
        };
        self.large = Large { bytes: large.bytes, first: started("first ever")?, next: started("next")? };
        let memory = suite.memory.with_context(|| lacks("memory"))?;
        self.memory = memory.figures.into_iter().map(bench::Pss::into_memory).collect();
        (self.machine, self.versions) = (bench.machine, suite.versions);
        Ok(())
    }

    /// The compilation of the largest module, which is the bench's.
    pub(crate) fn largest(&self) -> Result<&Compilation> {
        self.compilations.iter().max_by_key(|of| of.bytes).context("no compilation was measured")
    }

    /// Of a module such as most are: the smallest that starts on baseline code.
    pub(crate) fn usual(&self) -> Result<&Compilation> {
        let tiered = self.compilations.iter().filter(|of| of.bytes >= 1 << 20);
        tiered.min_by_key(|of| of.bytes).context("no compilation of 1 MiB or more was measured")
    }

    /// PSS of a contender's idle container with its daemon, in MiB, with nine others beside it.
    pub(crate) fn overhead(&self, contender: &str) -> Option<f64> {
        let of = |memory: &&Memory| memory.contender == contender && memory.containers == 10;
        self.memory.iter().find(of).map(|memory| memory.mebibytes_each)
    }
}

impl Tasks {
    fn of(throughput: &bench::Throughput, contender: &str, cores: usize) -> Result<Self> {
        let series = |at_once| {
            let is = |series: &&bench::Series| {
                (series.contender.as_str(), series.daemon.as_str(), series.scope.as_str(), series.at_once)
                    == (contender, "own", "task", at_once)
            };
            throughput.series.iter().find(is).with_context(|| format!("bench has no {contender}, {at_once} at a time"))
        };
        let [one, two, eight] = [series(1)?, series(2)?, series(8)?];
        let bench::Phases { create, start, wait, delete } = &one.phases;
        ensure!(!create.is_empty() && create.len() == start.len(), "bench has no samples of {contender}");
        let until_started: Vec<f64> = create.iter().zip(start).map(|(create, start)| create + start).collect();
        let (mean, rest) = (mean(&until_started), mean(wait) + mean(delete));
        let cpu_seconds = cores as f64 / eight.per_second;
        let mut sorted = until_started;
        sorted.sort_by(f64::total_cmp);
        Ok(Self {
            cpu_seconds,
            wait_seconds: (1.0 / one.per_second - cpu_seconds).max(0.0),
            starting: mean / (mean + rest),
            spread: (0..=10).map(|tenth| sorted[(sorted.len() - 1) * tenth / 10] / mean).collect(),
            per_second: [one, two, eight].map(|series| series.per_second),
        })
    }
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What is read of the bench's report; its own crate says what each field is.
mod bench {
    use serde::Deserialize;

    use super::{Machine, Memory, Versions};

    #[derive(Deserialize)]
    pub(super) struct Report {
        pub(super) machine: Machine,
        pub(super) suites: Vec<Suite>,
    }

    #[derive(Deserialize)]
    pub(super) struct Suite {
        pub(super) versions: Versions,
        pub(super) throughput: Option<Throughput>,
        pub(super) memory: Option<Figures>,
        pub(super) large: Option<Large>,
    }

    #[derive(Deserialize)]
    pub(super) struct Throughput {
        pub(super) series: Vec<Series>,
    }

    #[derive(Deserialize)]
    pub(super) struct Series {
        pub(super) contender: String,
        pub(super) daemon: String,
        pub(super) scope: String,
        pub(super) at_once: usize,
        pub(super) per_second: f64,
        pub(super) phases: Phases,
    }

    #[derive(Deserialize)]
    pub(super) struct Phases {
        pub(super) create: Vec<f64>,
        pub(super) start: Vec<f64>,
        pub(super) wait: Vec<f64>,
        pub(super) delete: Vec<f64>,
    }

    #[derive(Deserialize)]
    pub(super) struct Figures {
        pub(super) figures: Vec<Pss>,
    }

    #[derive(Deserialize)]
    pub(super) struct Pss {
        contender: String,
        containers: usize,
        daemon: f64,
        init: f64,
    }

    impl Pss {
        pub(super) fn into_memory(self) -> Memory {
            let mebibytes_each = (self.daemon + self.init) / 1024.0;
            Memory { contender: self.contender, containers: self.containers, mebibytes_each }
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Large {
        pub(super) bytes: u64,
        pub(super) starts: Vec<Starts>,
    }

    #[derive(Deserialize)]
    pub(super) struct Starts {
        pub(super) what: String,
        pub(super) until_started: Vec<f64>,
    }
}
