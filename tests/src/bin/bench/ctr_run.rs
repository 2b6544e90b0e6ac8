//! The wall time of `ctr run --rm` of a hello, as a user waits for it.

use anyhow::Result;
use indicatif::ProgressBar;
use lighter_tests::Bed;
use serde::Serialize;

use crate::{
    budget::{self, Bound, Verdict},
    contender::Contender,
    samples::Samples,
    table::Table,
    timed,
};

const CONTENDERS: [Contender; 5] =
    [Contender::Lighter, Contender::LighterComponent, Contender::LighterLayer, Contender::Runc, Contender::NoOp];

/// Rounds that are not counted: caches fill, Lighter compiles.
const WARM_UP: usize = 2;

/// All of them.
#[derive(Debug, Serialize)]
pub(crate) struct CtrRun {
    contenders: Vec<Times>,
    verdicts: Vec<Verdict>,
}

#[derive(Debug, Serialize)]
struct Times {
    contender: Contender,
    median: f64,
    p90: f64,
    /// In milliseconds, as are the two above.
    samples: Samples,
}

/// Runs each once a round.
pub(crate) fn measure(bed: &Bed, rounds: usize, progress: &ProgressBar) -> Result<CtrRun> {
    progress.reset();
    progress.set_message("ctr run");
    progress.set_length((rounds + WARM_UP) as u64);
    let mut samples = CONTENDERS.map(|contender| (contender, Samples::default()));
    for round in 0..rounds + WARM_UP {
        for (contender, samples) in &mut samples {
            let milliseconds = once(bed, *contender, &format!("run-{}-{round}", contender.slug()))?;
            if round >= WARM_UP {
                samples.push(milliseconds);
            }
        }
        progress.inc(1);
    }
    let contenders =
        samples.map(|(contender, samples)| Times { contender, median: samples.median(), p90: samples.p90(), samples });
    Ok(CtrRun::new(contenders.into()))
}

/// The milliseconds of one `ctr run`.
pub(crate) fn once(bed: &Bed, contender: Contender, id: &str) -> Result<f64> {
    let mut argv = ["ctr", "run", "--rm"].map(str::to_owned).to_vec();
    argv.extend(contender.arguments());
    argv.push(id.to_owned());
    timed::in_bed(bed, &argv, contender.prints())
}

impl CtrRun {
    fn new(contenders: Vec<Times>) -> CtrRun {
        let mut run = CtrRun { contenders, verdicts: Vec::new() };
        let lighter = run.median(Contender::Lighter);
        run.verdicts = vec![
            Verdict::new("× runc", Bound::AtMost(0.5), lighter / run.median(Contender::Runc)),
            Verdict::new("ms above no-op", Bound::AtMost(20.0), lighter - run.median(Contender::NoOp)),
        ];
        run
    }

    /// Of each.
    pub(crate) fn rounds(&self) -> usize {
        self.contenders.first().map_or(0, |times| times.samples.len())
    }

    fn median(&self, contender: Contender) -> f64 {
        self.contenders.iter().find(|times| times.contender == contender).map_or(f64::NAN, |times| times.median)
    }

    pub(crate) fn table(&self) -> Table {
        let mut table =
            Table::new(&["`ctr run --rm` hello", "median ms", "p90 ms", "× runc", "ms above no-op", "budget"]);
        for Times { contender, median, p90, .. } in &self.contenders {
            table.row([
                contender.name().to_owned(),
                format!("{median:.1}"),
                format!("{p90:.1}"),
                format!("{:.2}", median / self.median(Contender::Runc)),
                format!("{:.1}", median - self.median(Contender::NoOp)),
                if *contender == Contender::Lighter { budget::cell(&self.verdicts) } else { String::new() },
            ]);
        }
        table
    }
}
