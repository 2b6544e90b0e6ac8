//! All figures of a run, as Markdown and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{
    cold::Cold,
    ctr_run::CtrRun,
    large::Large,
    machine::{Machine, Versions},
    memory::Memory,
    throughput::Throughput,
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) suites: Vec<SuiteReport>,
}

/// What was measured under one containerd.
#[derive(Debug, Serialize)]
pub(crate) struct SuiteReport {
    pub(crate) suite: &'static str,
    pub(crate) versions: Versions,
    pub(crate) ctr_run: CtrRun,
    pub(crate) throughput: Throughput,
    pub(crate) memory: Memory,
    pub(crate) cold: Cold,
    pub(crate) large: Large,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, memory, kernel, load, date } = &self.machine;
        writeln!(f, "# Lighter, measured on {date}\n")?;
        writeln!(f, "{cores} cores of {processor}, {memory} GiB, Linux {kernel}; load {load} before the run.")?;
        self.suites.iter().try_for_each(|suite| write!(f, "\n{suite}"))
    }
}

impl fmt::Display for SuiteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Versions { containerd, runc, lighter } = &self.versions;
        writeln!(f, "## containerd {containerd} (Debian {})\n\n{lighter}; runc {runc}.\n", self.suite)?;
        writeln!(f, "{} runs of each, in turns:\n\n{}", self.ctr_run.rounds(), self.ctr_run.table())?;
        writeln!(f, "{} tasks of each, in turns, through the API:\n", self.throughput.tasks())?;
        writeln!(f, "{}\n{}", self.throughput.rates(), self.throughput.phases())?;
        writeln!(f, "{}", self.memory.table())?;
        writeln!(f, "{} first starts, the cache of compiled code emptied before each:\n", self.cold.rounds())?;
        writeln!(f, "{}", self.cold.table())?;
        writeln!(
            f,
            "{} first starts of a module of {:.1} MB, through the API:\n",
            self.large.rounds(),
            self.large.megabytes()
        )?;
        write!(f, "{}", self.large.table())
    }
}
