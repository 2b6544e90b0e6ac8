//! What was measured: `make bench`'s figures of one node, and what compilations take.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::compiler::{Compilation, Effort};

/// Those that the documentation's tables are made from, as the last update left them.
const KEPT: &str = include_str!("figures.json");

/// One machine's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// When, where and of what, in a sentence.
    pub(crate) measured: String,
    pub(crate) cores: usize,
    pub(crate) lighter: Tasks,
    pub(crate) runc: Tasks,
    pub(crate) large: Large,
    pub(crate) compilations: Vec<Compilation>,
}

/// A task's whole life with a daemon of its own: create, start, wait, delete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tasks {
    /// CPU time of all that takes part, in seconds: what the cores have for each task when they are busy.
    pub(crate) cpu_seconds: f64,
    /// What one at a time takes longer than that.
    pub(crate) wait_seconds: f64,
    /// The part of both until the task has started.
    pub(crate) starting: f64,
    /// Deciles of create and start, one at a time, over their mean.
    pub(crate) spread: Vec<f64>,
    /// As measured, one, two and eight at a time.
    pub(crate) per_second: [f64; 3],
    /// PSS of an idle container with its daemon, nine others beside it.
    pub(crate) mebibytes: f64,
}

/// The bench's large module, in seconds until started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Large {
    pub(crate) bytes: u64,
    pub(crate) first: f64,
    pub(crate) next: f64,
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
        let bench: Value = serde_json::from_str(json).context("decode what bench wrote")?;
        let (machine, suite) = (&bench["machine"], &bench["suites"][0]);
        let text = |of: &Value, name: &str| decode::<String>(&of[name]);
        let [date, processor, load] = [text(machine, "date")?, text(machine, "processor")?, text(machine, "load")?];
        let version = |name| text(&suite["versions"], name);
        let [containerd, runc, lighter] = [version("containerd")?, version("runc")?, version("lighter")?];
        self.cores = decode(&machine["cores"])?;
        self.measured = format!(
            "Measured on {date}: {} cores of {processor}, load {load} before the run; containerd {containerd}, runc {runc}, {lighter}.",
            self.cores
        );
        self.lighter = Tasks::of(suite, "lighter", self.cores)?;
        self.runc = Tasks::of(suite, "runc", self.cores)?;
        let large = &suite["large"];
        let started = |what: &str| -> Result<f64> {
            let samples = decode(&find(&large["starts"], &json!({ "what": what }))?["until_started"])?;
            Ok(median(samples) / 1e3)
        };
        self.large = Large { bytes: decode(&large["bytes"])?, first: started("first ever")?, next: started("next")? };
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
}

impl Tasks {
    fn of(suite: &Value, contender: &str, cores: usize) -> Result<Self> {
        let series = |at_once: usize| -> Result<(f64, &Value)> {
            let is = json!({ "contender": contender, "daemon": "own", "scope": "task", "at_once": at_once });
            let series = find(&suite["throughput"]["series"], &is)?;
            Ok((decode(&series["per_second"])?, &series["phases"]))
        };
        let [(one, phases), (two, _), (eight, _)] = [series(1)?, series(2)?, series(8)?];
        let phase = |name: &str| decode::<Vec<f64>>(&phases[name]);
        let mut until_started: Vec<f64> =
            phase("create")?.iter().zip(phase("start")?).map(|(create, start)| create + start).collect();
        ensure!(!until_started.is_empty(), "bench has no samples of {contender}");
        until_started.sort_by(f64::total_cmp);
        let (mean_start, rest) = (mean(&until_started), mean(&phase("wait")?) + mean(&phase("delete")?));
        let cpu_seconds = cores as f64 / eight;
        let memory = find(&suite["memory"]["figures"], &json!({ "contender": contender, "containers": 10 }))?;
        let kibibytes = decode::<f64>(&memory["daemon"])? + decode::<f64>(&memory["init"])?;
        let decile = |tenth| until_started[(until_started.len() - 1) * tenth / 10] / mean_start;
        Ok(Self {
            cpu_seconds,
            wait_seconds: (1.0 / one - cpu_seconds).max(0.0),
            starting: mean_start / (mean_start + rest),
            spread: (0..=10).map(decile).collect(),
            per_second: [one, two, eight],
            mebibytes: kibibytes / 1024.0,
        })
    }

    /// CPU seconds until it has started.
    pub(crate) fn starting_cpu(&self) -> f64 {
        self.cpu_seconds * self.starting
    }

    /// Seconds that it waits until then.
    pub(crate) fn starting_wait(&self) -> f64 {
        self.wait_seconds * self.starting
    }
}

impl Effort {
    /// CPU seconds of it that no other core helps with.
    pub(crate) fn serial(&self) -> f64 {
        self.serial_seconds.min(self.cpu_seconds)
    }
}

/// The one of a list that has all these fields.
fn find<'a>(list: &'a Value, fields: &Value) -> Result<&'a Value> {
    let wanted = |of: &&Value| fields.as_object().is_some_and(|fields| fields.iter().all(|(name, is)| of[name] == *is));
    let found = list.as_array().and_then(|list| list.iter().find(wanted));
    found.with_context(|| format!("bench has no {fields}; run it without --only"))
}

fn decode<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T> {
    T::deserialize(value).context("bench left a figure out; run it without --only")
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
