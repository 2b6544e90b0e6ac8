//! The simulation's parts against what was measured: the bench's own situations, on the bench's own machine.

use anyhow::Result;

use crate::{
    chance::Chance,
    figures::{Figures, Tasks},
    processor::{Processor, Work},
    scenario,
};

/// What was measured and what the model says of the same.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) what: &'static str,
    pub(crate) measured: f64,
    pub(crate) simulated: f64,
}

/// The model's parameters are from runs one and eight at a time: two at a time, and the large module, are predicted.
pub(crate) fn compare(figures: &Figures) -> Result<[Compared; 3]> {
    let cores = figures.machine.cores;
    let two =
        |what, tasks: &Tasks| Compared { what, measured: tasks.per_second[1], simulated: per_second(tasks, cores, 2) };
    Ok([
        two("Lighter's tasks per second, two at a time", &figures.lighter),
        two("runc's tasks per second, two at a time", &figures.runc),
        Compared {
            what: "seconds until the large module has started for the first time",
            measured: figures.large.first,
            simulated: first_start(figures)?,
        },
    ])
}

/// Tasks whole, so many at a time, each followed by the next: what `bench` does for tasks per second.
fn per_second(tasks: &Tasks, cores: usize, at_once: usize) -> f64 {
    const TASKS: usize = 200;
    let mut chance = Chance::new(1);
    let mut processor = Processor::new(cores);
    // When each that waits goes on.
    let mut waiting: Vec<f64> = vec![tasks.wait_seconds; at_once];
    let (mut now, mut begun, mut ended) = (0.0, at_once, 0);
    while ended < TASKS {
        let next = waiting.iter().copied().chain(processor.next()).min_by(f64::total_cmp);
        now = next.unwrap_or(now);
        for _ in waiting.extract_if(.., |at| *at <= now) {
            let seconds = tasks.cpu_seconds * chance.of(&tasks.spread);
            processor.add(now, (), Work { seconds, width: 1.0, idle: false });
        }
        for () in processor.done(now) {
            ended += 1;
            if begun < TASKS {
                begun += 1;
                waiting.push(now + tasks.wait_seconds);
            }
        }
    }
    TASKS as f64 / now
}

/// Baseline code is made, and then all is as at the next start.
fn first_start(figures: &Figures) -> Result<f64> {
    let cores = figures.machine.cores;
    let compile = scenario::compile(&figures.largest()?.baseline);
    let mut now = figures.large.next;
    let mut processor = Processor::new(cores);
    for (seconds, width) in [(compile.serial, 1.0), (compile.parallel, cores as f64)] {
        processor.add(now, (), Work { seconds, width, idle: false });
        while let Some(at) = processor.next() {
            now = at;
            processor.done(now);
        }
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulation may be off by a third before it says nothing about seconds any more.
    const NEAR: f64 = 1.0 / 3.0;

    #[test]
    fn near_to_what_was_measured() {
        let figures = Figures::kept().expect("figures");
        for Compared { what, measured, simulated } in compare(&figures).expect("comparison") {
            let off = (simulated / measured).ln().abs();
            assert!(off < (1.0 + NEAR).ln(), "{what}: measured {measured:.2}, simulated {simulated:.2}");
        }
    }
}
