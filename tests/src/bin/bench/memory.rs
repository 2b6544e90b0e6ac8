//! Memory of idle containers: what a daemon and a container's init keep, their share of common pages included.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use lighter_tests::Bed;
use serde::Serialize;

use crate::{
    budget::{Bound, Verdict},
    contender::Contender,
    table::Table,
};

/// Each with the numbers of containers at once, every one of which has its own daemon.
const CONTENDERS: [(Contender, &[usize]); 3] =
    [(Contender::Lighter, &[1, 10, 50]), (Contender::LighterWamr, &[1, 10, 50]), (Contender::Runc, &[1, 10])];

/// Until what was freed at the start is given back.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    figures: Vec<Figure>,
    /// Each for Lighter with so many containers.
    verdicts: Vec<(usize, Verdict)>,
}

/// Proportional set size for each container, in kB of 1024 bytes. Source: smaps_rollup in proc_pid_smaps(5).
#[derive(Debug, Serialize)]
struct Figure {
    contender: Contender,
    containers: usize,
    daemon: u64,
    init: u64,
}

/// Starts more and more containers that sleep, and looks at them.
pub(crate) fn measure(bed: &Bed, progress: &ProgressBar) -> Result<Memory> {
    progress.reset();
    progress.set_message("memory");
    progress.set_length(CONTENDERS.iter().map(|(_, counts)| counts.len() as u64).sum());
    let mut figures = Vec::new();
    for (contender, counts) in CONTENDERS {
        let mut inits = Vec::new();
        for containers in counts {
            for number in inits.len()..*containers {
                inits.push(start(bed, contender, number)?);
            }
            thread::sleep(SETTLE);
            figures.push(Figure::of(bed, contender, &inits)?);
            progress.inc(1);
        }
        for number in 0..inits.len() {
            remove(bed, contender, number)?;
        }
    }
    Ok(Memory::new(figures))
}

fn name(contender: Contender, number: usize) -> String {
    format!("idle-{}-{number}", contender.slug())
}

/// Starts a container that sleeps; returns its init's pid in the bed.
fn start(bed: &Bed, contender: Contender, number: usize) -> Result<u32> {
    let (id, file) = (name(contender, number), "/run/lighter-bench.pid");
    let mut argv = ["run", "--detach", "--null-io", "--pid-file", file].map(str::to_owned).to_vec();
    argv.extend(contender.idle_arguments());
    argv.push(id);
    let run = bed.ctr(&argv).try_run()?;
    ensure!(run.status == 0, "{run}");
    let pid = fs::read_to_string(bed.path(file)).context("read the pid file")?;
    pid.trim().parse().with_context(|| format!("pid {pid:?}"))
}

fn remove(bed: &Bed, contender: Contender, number: usize) -> Result<()> {
    let id = name(contender, number);
    // Its exit code, of a killed program, becomes that of `ctr`.
    bed.ctr(&["tasks", "rm", "--force", &id]).try_run()?;
    let removed = bed.ctr(&["containers", "rm", &id]).try_run()?;
    ensure!(removed.status == 0, "{removed}");
    Ok(())
}

impl Figure {
    fn of(bed: &Bed, contender: Contender, inits: &[u32]) -> Result<Figure> {
        let mut figure = Figure { contender, containers: inits.len(), daemon: 0, init: 0 };
        for init in inits {
            // A daemon is subreaper of its containers.
            let daemon = field(bed, *init, "status", "PPid:")?;
            figure.init += field(bed, *init, "smaps_rollup", "Pss:")?;
            figure.daemon += field(bed, u32::try_from(daemon).context("pid")?, "smaps_rollup", "Pss:")?;
        }
        figure.init /= inits.len() as u64;
        figure.daemon /= inits.len() as u64;
        Ok(figure)
    }

    fn both(&self) -> u64 {
        self.daemon + self.init
    }
}

/// The first number after `name` in a file of /proc.
pub(crate) fn field(bed: &Bed, pid: u32, file: &str, name: &str) -> Result<u64> {
    let path = bed.path(format!("/proc/{pid}/{file}"));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name} in {}", path.display()))
}

impl Memory {
    fn new(figures: Vec<Figure>) -> Memory {
        let lighter = |containers| {
            let ours = |figure: &&Figure| figure.contender == Contender::Lighter && figure.containers == containers;
            figures.iter().find(ours).map_or(f64::NAN, |figure| figure.both() as f64 / 1024.0)
        };
        let verdicts = vec![
            (1, Verdict::new("MiB each at 1", Bound::AtMost(6.0), lighter(1))),
            (10, Verdict::new("MiB each at 10", Bound::AtMost(3.5), lighter(10))),
        ];
        Memory { figures, verdicts }
    }

    pub(crate) fn table(&self) -> Table {
        let titles = ["PSS of idle containers, kB each", "containers", "daemon", "init", "both", "budget"];
        let mut table = Table::new(&titles);
        for figure in &self.figures {
            let ours = figure.contender == Contender::Lighter;
            let verdict = self.verdicts.iter().find(|(count, _)| ours && *count == figure.containers);
            table.row([
                figure.contender.name().to_owned(),
                figure.containers.to_string(),
                figure.daemon.to_string(),
                figure.init.to_string(),
                figure.both().to_string(),
                verdict.map_or(String::new(), |(_, verdict)| verdict.to_string()),
            ]);
        }
        table
    }
}
