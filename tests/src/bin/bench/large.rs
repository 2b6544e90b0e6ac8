//! A module of 30 MB: the first start ever, and the next ones, on code that was made in the background meanwhile.
//!
//! What Lighter does is over when Start returns; what the guest then takes to boot is shown beside it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use lighter_tests::{Bed, PLATFORM, RUNTIME, guests};
use serde::Serialize;

use crate::{
    budget::{self, Bound, Verdict},
    client::{Containerd, Phases},
    contender::{Contender, LARGE},
    samples::Samples,
    table::Table,
};

/// What the compiler in the background may take, at low priority.
const PATIENCE: Duration = Duration::from_secs(300);

/// Through the API, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Large {
    bytes: u64,
    starts: Vec<Starts>,
    verdicts: Vec<Verdict>,
}

#[derive(Debug, Default, Serialize)]
struct Starts {
    what: &'static str,
    /// Create and Start, after which the guest's first instruction is next.
    until_started: Samples,
    /// From then to the guest's end.
    guest: Samples,
}

impl Starts {
    fn of(what: &'static str) -> Starts {
        Starts { what, ..Starts::default() }
    }

    fn push(&mut self, phases: Phases) {
        self.until_started.push(phases.create + phases.start);
        self.guest.push(phases.wait);
    }
}

/// Empties the cache before each first start.
pub(crate) fn measure(bed: &Bed, rounds: usize, progress: &ProgressBar) -> Result<Large> {
    progress.reset();
    progress.set_message("large module");
    progress.set_length(rounds as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start event loop")?;
    let bytes = fs::metadata(guests::big()).context("look at the large module")?.len();
    template(bed, "large-template", &["--runtime", RUNTIME, "--platform", PLATFORM, LARGE].map(str::to_owned))?;
    // Nobody may still be writing to the cache when it is emptied.
    wait_for_optimised(bed)?;
    template(bed, "hello-template", &Contender::Lighter.arguments())?;
    let (mut first, mut next, mut hello) = (Starts::of("first ever"), Starts::of("next"), Starts::of("hello, next"));
    for round in 0..rounds {
        let emptied = bed.sh("rm -r /var/lib/lighter/cache").try_run()?;
        ensure!(emptied.status == 0, "empty the cache: {emptied}");
        let run = |template: &str, what: &str| -> Result<Phases> {
            runtime.block_on(async {
                let containerd = Containerd::connect(bed).await?;
                let container = containerd.prepare(template, &format!("{what}-{round}"), None).await?;
                let phases = containerd.run(&container).await?;
                containerd.remove(container).await?;
                Ok(phases)
            })
        };
        first.push(run("large-template", "large-first")?);
        wait_for_optimised(bed)?;
        next.push(run("large-template", "large-next")?);
        run("hello-template", "hello-first")?;
        hello.push(run("hello-template", "hello-next")?);
        progress.inc(1);
    }
    for id in ["large-template", "hello-template"] {
        let removed = bed.ctr(&["containers", "delete", id]).try_run()?;
        ensure!(removed.status == 0, "remove a template: {removed}");
    }
    Ok(Large::new(bytes, [first, next, hello]))
}

/// A container that others are copied from. `ctr` keeps what it ran.
fn template(bed: &Bed, id: &str, arguments: &[String]) -> Result<()> {
    let mut argv = vec!["run".to_owned()];
    argv.extend_from_slice(arguments);
    argv.push(id.to_owned());
    let ran = bed.ctr(&argv).timeout(PATIENCE).try_run()?;
    ensure!(ran.status == 0, "run the template: {ran}");
    let deleted = bed.ctr(&["tasks", "delete", id]).try_run()?;
    ensure!(deleted.status == 0 || deleted.stderr.contains("not found"), "delete the template's task: {deleted}");
    Ok(())
}

fn wait_for_optimised(bed: &Bed) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = bed.sh("find /var/lib/lighter/cache -name '*.cwasm'").try_run()?;
        if !found.stdout.is_empty() && !found.stdout.contains("baseline") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no optimised code within {PATIENCE:?}: {found}");
        thread::sleep(Duration::from_millis(100));
    }
}

impl Large {
    fn new(bytes: u64, starts: [Starts; 3]) -> Large {
        let [first, next, hello] = starts.each_ref().map(|starts| starts.until_started.median());
        let verdicts = vec![
            Verdict::new("ms, first ever", Bound::AtMost(2000.0), first),
            Verdict::new("ms above hello, next", Bound::AtMost(30.0), next - hello),
        ];
        Large { bytes, starts: starts.into(), verdicts }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.starts.first().map_or(0, |starts| starts.until_started.len())
    }

    pub(crate) fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&["large module, median", "until started ms", "then the guest ms", "budget"]);
        for Starts { what, until_started, guest } in &self.starts {
            table.row([
                (*what).to_owned(),
                format!("{:.1}", until_started.median()),
                format!("{:.1}", guest.median()),
                if *what == "next" { budget::cell(&self.verdicts) } else { String::new() },
            ]);
        }
        table
    }
}
