//! Tasks per second, and what the calls of a task's life take, through containerd's API.
//!
//! Containers and snapshots, which cost the same whatever the runtime is, are made in advance; but one series makes
//! and removes them too, as clients do.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use lighter_tests::Bed;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    budget::{self, Bound, Verdict},
    client::{Containerd, Phases, Prepared},
    contender::Contender,
    samples::Samples,
    table::Table,
};

const CONTENDERS: [Contender; 3] = [Contender::Lighter, Contender::Runc, Contender::NoOp];

/// Conditions of each kind of daemon: one at a time for the phases, the others for rates.
const SERIES: [(Scope, usize); 4] = [(Scope::Task, 1), (Scope::Task, 2), (Scope::Task, 8), (Scope::Container, 2)];

/// Contenders take turns: so many each.
const TURNS: usize = 4;

/// Whose daemon a task gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Daemon {
    /// One for all, which runs already: containers of one pod.
    Shared,
    /// Its own, started and ended with it: containers by themselves.
    Own,
}

/// What of a container's life is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Scope {
    /// The task's calls: create, start, wait, delete.
    Task,
    /// Also the container with its snapshot, made before and removed after.
    Container,
}

/// What a series has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Conditions {
    daemon: Daemon,
    scope: Scope,
    at_once: usize,
}

impl Conditions {
    const fn new(daemon: Daemon, scope: Scope, at_once: usize) -> Conditions {
        Conditions { daemon, scope, at_once }
    }
}

/// The series of the budgets: the peers' figures were measured so.
const BUDGETED: Conditions = Conditions::new(Daemon::Shared, Scope::Container, 2);

/// Columns of the table of rates.
const RATES: [(Conditions, &str); 5] = [
    (BUDGETED, "with container: one daemon, 2 at a time"),
    (Conditions::new(Daemon::Shared, Scope::Task, 2), "task: one daemon, 2"),
    (Conditions::new(Daemon::Shared, Scope::Task, 8), "8"),
    (Conditions::new(Daemon::Own, Scope::Task, 2), "a daemon each, 2"),
    (Conditions::new(Daemon::Own, Scope::Task, 8), "8"),
];

#[derive(Debug, Serialize)]
pub(crate) struct Throughput {
    tasks: usize,
    series: Vec<Series>,
    verdicts: Vec<Verdict>,
}

/// Tasks of one contender under the same conditions.
#[derive(Debug, Serialize)]
struct Series {
    contender: Contender,
    #[serde(flatten)]
    conditions: Conditions,
    per_second: f64,
    seconds: f64,
    phases: Distribution,
}

/// In milliseconds.
#[derive(Debug, Default, Serialize)]
struct Distribution {
    create: Samples,
    start: Samples,
    wait: Samples,
    delete: Samples,
}

impl Distribution {
    fn push(&mut self, phases: Phases) {
        self.create.push(phases.create);
        self.start.push(phases.start);
        self.wait.push(phases.wait);
        self.delete.push(phases.delete);
    }

    fn all(&self) -> [&Samples; 4] {
        [&self.create, &self.start, &self.wait, &self.delete]
    }
}

/// A contender's containers.
struct Fleet {
    contender: Contender,
    group: Option<String>,
    containers: Arc<[Prepared]>,
    /// Created and never started, so that a shared daemon stays.
    keeper: Option<Prepared>,
}

/// Runs `tasks` of each contender: in one daemon or one each; one, two and eight at a time.
pub(crate) fn measure(bed: &Bed, tasks: usize, progress: &ProgressBar) -> Result<Throughput> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the event loop")?;
    progress.reset();
    progress.set_message("tasks per second");
    progress.set_length((2 * CONTENDERS.len() * tasks * (1 + SERIES.len())) as u64);
    for contender in CONTENDERS {
        make_template(bed, contender)?;
    }
    let series = runtime.block_on(async {
        let containerd = Containerd::connect(bed).await?;
        let mut series = series_of(&containerd, Daemon::Shared, tasks, progress).await?;
        series.extend(series_of(&containerd, Daemon::Own, tasks, progress).await?);
        anyhow::Ok(series)
    })?;
    Ok(Throughput::new(tasks, series))
}

/// A container as `ctr` makes it.
fn make_template(bed: &Bed, contender: Contender) -> Result<()> {
    let mut argv = ["run", "--null-io"].map(str::to_owned).to_vec();
    argv.extend(contender.arguments());
    argv.push(template(contender));
    let run = bed.ctr(&argv).try_run()?;
    ensure!(run.status == 0, "{run}");
    Ok(())
}

fn template(contender: Contender) -> String {
    format!("template-{}", contender.slug())
}

async fn series_of(
    containerd: &Containerd,
    daemon: Daemon,
    tasks: usize,
    progress: &ProgressBar,
) -> Result<Vec<Series>> {
    let mut fleets = Vec::new();
    for contender in CONTENDERS {
        fleets.push(Fleet::prepare(containerd, contender, daemon, tasks, progress).await?);
    }
    let mut series = Vec::new();
    for (scope, at_once) in SERIES {
        let conditions = Conditions { daemon, scope, at_once };
        let mut round: Vec<Series> = fleets.iter().map(|fleet| Series::new(fleet.contender, conditions)).collect();
        for turn in 0..TURNS {
            for (fleet, series) in fleets.iter().zip(&mut round) {
                let range = tasks * turn / TURNS..tasks * (turn + 1) / TURNS;
                let share = range.len() as u64;
                series.add(containerd, fleet, range).await?;
                progress.inc(share);
            }
        }
        series.extend(round);
    }
    for keeper in fleets.iter().filter_map(|fleet| fleet.keeper.as_ref()) {
        containerd.delete(keeper).await?;
    }
    Ok(series)
}

impl Fleet {
    async fn prepare(
        containerd: &Containerd,
        contender: Contender,
        daemon: Daemon,
        tasks: usize,
        progress: &ProgressBar,
    ) -> Result<Fleet> {
        let template = template(contender);
        let kind = if daemon == Daemon::Own { "own" } else { "shared" };
        let name = |what: &str| format!("{}-{kind}-{what}", contender.slug());
        let group = (daemon == Daemon::Shared).then(|| name("group"));
        let mut containers = Vec::new();
        for number in 0..tasks {
            containers.push(containerd.prepare(&template, &name(&number.to_string()), group.as_deref()).await?);
            progress.inc(1);
        }
        let mut keeper = None;
        if group.is_some() {
            let container = containerd.prepare(&template, &name("keeper"), group.as_deref()).await?;
            containerd.create(&container).await?;
            keeper = Some(container);
        }
        Ok(Fleet { contender, group, containers: containers.into(), keeper })
    }
}

impl Series {
    fn new(contender: Contender, conditions: Conditions) -> Series {
        Series { contender, conditions, per_second: 0.0, seconds: 0.0, phases: Distribution::default() }
    }

    /// Runs a task in each container of `range`.
    async fn add(&mut self, containerd: &Containerd, fleet: &Fleet, range: Range<usize>) -> Result<()> {
        let next = Arc::new(AtomicUsize::new(range.start));
        let mut workers = JoinSet::new();
        let start = Instant::now();
        for _ in 0..self.conditions.at_once {
            workers.spawn(Worker::new(containerd, fleet, self.conditions).run(Arc::clone(&next), range.end));
        }
        let mut finished = Vec::new();
        while let Some(worker) = workers.join_next().await {
            finished.extend(worker.context("a worker panicked")??);
        }
        self.seconds += start.elapsed().as_secs_f64();
        finished.into_iter().for_each(|phases| self.phases.push(phases));
        self.per_second = self.phases.create.len() as f64 / self.seconds;
        Ok(())
    }
}

/// One of those at once.
struct Worker {
    containerd: Containerd,
    contender: Contender,
    group: Option<String>,
    containers: Arc<[Prepared]>,
    conditions: Conditions,
}

impl Worker {
    fn new(containerd: &Containerd, fleet: &Fleet, conditions: Conditions) -> Worker {
        Worker {
            containerd: containerd.clone(),
            contender: fleet.contender,
            group: fleet.group.clone(),
            containers: Arc::clone(&fleet.containers),
            conditions,
        }
    }

    /// Takes numbers below `end` until there are none left.
    async fn run(self, next: Arc<AtomicUsize>, end: usize) -> Result<Vec<Phases>> {
        let mut phases = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= end {
                return Ok(phases);
            }
            phases.push(match self.conditions.scope {
                Scope::Task => self.containerd.run(&self.containers[number]).await?,
                Scope::Container => self.run_with_container(number).await?,
            });
        }
    }

    async fn run_with_container(&self, number: usize) -> Result<Phases> {
        let id = format!("{}-whole-{number}", self.contender.slug());
        let container = self.containerd.prepare(&template(self.contender), &id, self.group.as_deref()).await?;
        let phases = self.containerd.run(&container).await?;
        self.containerd.remove(container).await?;
        Ok(phases)
    }
}

impl Throughput {
    fn new(tasks: usize, series: Vec<Series>) -> Throughput {
        let mut throughput = Throughput { tasks, series, verdicts: Vec::new() };
        let rate = |contender| throughput.find(contender, BUDGETED).map_or(f64::NAN, |series| series.per_second);
        let lighter = rate(Contender::Lighter);
        let start = |contender| {
            let series = throughput.find(contender, Conditions::new(Daemon::Own, Scope::Task, 1));
            series.map_or(f64::NAN, |series| series.phases.start.median())
        };
        throughput.verdicts = vec![
            Verdict::new("× runc", Bound::AtLeast(5.0), lighter / rate(Contender::Runc)),
            Verdict::new("× no-op", Bound::AtLeast(0.55), lighter / rate(Contender::NoOp)),
            Verdict::new("ms above no-op", Bound::AtMost(5.0), start(Contender::Lighter) - start(Contender::NoOp)),
        ];
        throughput
    }

    fn find(&self, contender: Contender, conditions: Conditions) -> Option<&Series> {
        self.series.iter().find(|series| series.contender == contender && series.conditions == conditions)
    }

    pub(crate) fn rates(&self) -> Table {
        let mut titles = vec!["tasks per second"];
        titles.extend(RATES.iter().map(|(_, title)| title));
        titles.push("budget: with container");
        let mut table = Table::new(&titles);
        for contender in CONTENDERS {
            let rates = RATES.map(|(conditions, _)| {
                self.find(contender, conditions).map_or(String::new(), |series| format!("{:.1}", series.per_second))
            });
            let budget =
                if contender == Contender::Lighter { budget::cell(&self.verdicts[..2]) } else { String::new() };
            table.row([contender.name().to_owned()].into_iter().chain(rates).chain([budget]));
        }
        table
    }

    pub(crate) fn phases(&self) -> Table {
        let titles =
            ["one at a time, median ms", "create", "start", "wait", "delete", "budget: start to first instruction"];
        let mut table = Table::new(&titles);
        for (daemon, words) in [(Daemon::Own, "a daemon each"), (Daemon::Shared, "one daemon")] {
            for contender in CONTENDERS {
                let Some(series) = self.find(contender, Conditions::new(daemon, Scope::Task, 1)) else { continue };
                let medians = series.phases.all().map(|samples| format!("{:.2}", samples.median()));
                let ours = contender == Contender::Lighter && daemon == Daemon::Own;
                let budget = if ours { budget::cell(&self.verdicts[2..]) } else { String::new() };
                let name = format!("{}, {words}", contender.name());
                table.row([name].into_iter().chain(medians).chain([budget]));
            }
        }
        table
    }

    /// Of each figure.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }
}
