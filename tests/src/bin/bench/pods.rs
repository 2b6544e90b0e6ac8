//! Pods without a container in them, by CRI: how long one takes to be made, alone and among others, and what it keeps.

use std::{
    fs,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use lighter_tests::{
    Bed, Suite,
    cri::{Cri, Pod},
};
use serde::Serialize;

use crate::{memory::field, samples::Samples, table::Table};

/// Pods of each way that are there when memory is looked at, and that are made at once.
const PODS: usize = 10;
/// Until a daemon has given back what its start took.
const SETTLE: Duration = Duration::from_millis(1500);

/// What holds a pod's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// runc's pause container.
    Runc,
    /// Lighter's pause container.
    Paused,
    /// Lighter's daemon.
    Held,
}

impl Way {
    /// Those that a suite's containerd knows: 1.7 has a pause container in any case.
    fn all(suite: Suite) -> &'static [Way] {
        match suite {
            Suite::Trixie => &[Way::Runc, Way::Paused],
            Suite::Forky => &[Way::Runc, Way::Paused, Way::Held],
        }
    }

    /// The handler in the bed's configuration of containerd.
    fn handler(self) -> &'static str {
        match self {
            Way::Runc => "runc",
            Way::Paused => "lighter",
            Way::Held => "lighter-sandbox",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Way::Runc => "runc, pause container",
            Way::Paused => "Lighter, pause container",
            Way::Held => "Lighter, held by the daemon",
        }
    }
}

/// All ways.
#[derive(Debug, Serialize)]
pub(crate) struct Pods {
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Figure {
    way: Way,
    median: f64,
    p90: f64,
    /// Milliseconds until `PODS` were made at once.
    together: f64,
    /// Proportional set size of a pod's processes, in kB of 1024 bytes each.
    pss: u64,
    /// Processes of one pod.
    processes: usize,
    /// Of `RunPodSandbox`, in milliseconds, as are the first two.
    samples: Samples,
}

/// Makes pods in turns, looks at them, and then makes many at once.
pub(crate) fn measure(bed: &Bed, progress: &ProgressBar) -> Result<Pods> {
    let ways = Way::all(bed.suite());
    progress.reset();
    progress.set_message("pods");
    progress.set_length((PODS + ways.len()) as u64);
    let cri = Cri::connect(bed);
    // Not counted: the first of each way.
    for way in ways {
        drop(run(&cri, *way, "first")?);
    }
    let mut measured: Vec<(Samples, Vec<Pod<'_, '_>>)> = ways.iter().map(|_| Default::default()).collect();
    for round in 0..PODS {
        for (way, (samples, pods)) in ways.iter().zip(&mut measured) {
            let begun = Instant::now();
            pods.push(run(&cri, *way, &round.to_string())?);
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        progress.inc(1);
    }
    thread::sleep(SETTLE);
    let mut figures = Vec::new();
    for (way, (samples, pods)) in ways.iter().zip(&measured) {
        let (mut pss, mut processes) = (0, 0);
        for pod in pods {
            let all = processes_of(bed, pod.id())?;
            processes = all.len();
            pss += all.iter().map(|pid| field(bed, *pid, "smaps_rollup", "Pss:")).sum::<Result<u64>>()?;
        }
        pss /= PODS as u64;
        let (median, p90, samples) = (samples.median(), samples.p90(), samples.clone());
        figures.push(Figure { way: *way, median, p90, together: f64::NAN, pss, processes, samples });
    }
    drop(measured);
    for figure in &mut figures {
        figure.together = together(bed, figure.way)?;
        progress.inc(1);
    }
    Ok(Pods { figures })
}

fn run<'cri, 'bed>(cri: &'cri Cri<'bed>, way: Way, name: &str) -> Result<Pod<'cri, 'bed>> {
    let pod = cri.pod(way.handler(), &format!("bench-{}-{name}", way.handler()));
    pod.try_run().map_err(|status| anyhow!("run a pod of {}: {status}", way.name()))
}

/// Milliseconds from the first call to the last answer.
fn together(bed: &Bed, way: Way) -> Result<f64> {
    // Each with a connection of its own, made before.
    let clients: Vec<Cri<'_>> = (0..PODS).map(|_| Cri::connect(bed)).collect();
    let ready = Barrier::new(PODS + 1);
    thread::scope(|scope| {
        let made: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, cri)| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    let pod = run(&cri, way, &format!("together-{number}"));
                    let made = Instant::now();
                    pod.map(|_removed| made)
                })
            })
            .collect();
        ready.wait();
        let begun = Instant::now();
        let mut last = begun;
        for made in made {
            last = last.max(made.join().map_err(|_| anyhow!("a pod of {} failed", way.name()))??);
        }
        Ok((last - begun).as_secs_f64() * 1e3)
    })
}

/// A pod's daemon, and the daemon's children.
fn processes_of(bed: &Bed, id: &str) -> Result<Vec<u32>> {
    let entries = fs::read_dir(bed.path("/proc")).context("list the bed's processes")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_daemon = |pid: &u32| {
        let line = fs::read(bed.path(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains("containerd-shim") && line.contains(&format!("-id {id}"))
    };
    let pids: Vec<u32> = pids.collect();
    let daemon = pids.iter().copied().find(is_daemon).with_context(|| format!("no daemon of pod {id}"))?;
    let is_child = |pid: &&u32| field(bed, **pid, "status", "PPid:").is_ok_and(|parent| parent == u64::from(daemon));
    Ok([daemon].into_iter().chain(pids.iter().filter(is_child).copied()).collect())
}

impl Pods {
    /// Of each way, one after the other and at once.
    pub(crate) fn number() -> usize {
        PODS
    }

    pub(crate) fn table(&self) -> Table {
        let at_once = format!("{PODS} at once, ms");
        let titles = ["an empty pod by CRI", "median ms", "p90 ms", &at_once, "× runc", "PSS, kB each", "processes"];
        let mut table = Table::new(&titles);
        let runc = self.figures.iter().find(|figure| figure.way == Way::Runc).map_or(f64::NAN, |figure| figure.median);
        for Figure { way, median, p90, together, pss, processes, .. } in &self.figures {
            table.row([
                way.name().to_owned(),
                format!("{median:.1}"),
                format!("{p90:.1}"),
                format!("{together:.0}"),
                format!("{:.2}", median / runc),
                pss.to_string(),
                processes.to_string(),
            ]);
        }
        table
    }
}
