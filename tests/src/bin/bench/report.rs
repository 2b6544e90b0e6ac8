//! All figures of a run, as Markdown and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{
    cold::Cold,
    ctr_run::CtrRun,
    http::{self, Http},
    large::Large,
    machine::{Machine, Versions},
    memory::Memory,
    pods::Pods,
    throughput::Throughput,
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) suites: Vec<SuiteReport>,
}

/// What was measured under one containerd; nothing where it was not asked for.
#[derive(Debug, Serialize)]
pub(crate) struct SuiteReport {
    pub(crate) suite: &'static str,
    pub(crate) versions: Versions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ctr_run: Option<CtrRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) throughput: Option<Throughput>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pods: Option<Pods>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cold: Option<Cold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) large: Option<Large>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<Http>,
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
        if let Some(ctr_run) = &self.ctr_run {
            writeln!(f, "{} runs of each, in turns:\n\n{}", ctr_run.rounds(), ctr_run.table())?;
        }
        if let Some(throughput) = &self.throughput {
            writeln!(f, "{} tasks of each, in turns, through the API:\n", throughput.tasks())?;
            writeln!(f, "{}\n{}", throughput.rates(), throughput.phases())?;
        }
        if let Some(memory) = &self.memory {
            writeln!(f, "{}", memory.table())?;
        }
        if let Some(pods) = &self.pods {
            let number = Pods::number();
            writeln!(
                f,
                "{number} pods of each, in turns and all alive; then {number} of each at once:\n\n{}",
                pods.table()
            )?;
        }
        if let Some(cold) = &self.cold {
            writeln!(f, "{} first starts, the cache of compiled code emptied before each:\n", cold.rounds())?;
            writeln!(f, "{}", cold.table())?;
        }
        if let Some(large) = &self.large {
            let (rounds, megabytes) = (large.rounds(), large.megabytes());
            writeln!(
                f,
                "{rounds} first starts of a module of {megabytes:.1} MB, through the API:\n\n{}",
                large.table()
            )?;
        }
        if let Some(http) = &self.http {
            writeln!(
                f,
                "{} rounds of each, in turns, by wrk with one thread and {} connections; server and client share the cores. \
                 Lighter's servers are in a container, behind the seal, the others plain processes. {}.\n\n{}\n{}",
                http.rounds(),
                http::CONNECTIONS,
                http.peer(),
                http.table(),
                http.starts()
            )?;
        }
        Ok(())
    }
}
