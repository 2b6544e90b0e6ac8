//! The simulation's parts against what was measured: the bench's own situations, on the bench's own machine.

use anyhow::Result;

use crate::{
    chance::Chance,
    figures::{Figures, Tasks},
    processor::{Processor, Work},
};

/// What it is, as it was measured, and what the model says of the same.
pub(crate) type Compared = (&'static str, f64, f64);

/// The model's parameters are from runs one and eight at a time: two at a time, and the large module, are predicted.
pub(crate) fn compare(figures: &Figures) -> Result<[Compared; 3]> {
    let two = |tasks: &Tasks| (tasks.per_second[1], per_second(tasks, figures.cores, 2));
    let (lighter, runc) = (two(&figures.lighter), two(&figures.runc));
    let large = "seconds until the large module has started for the first time";
    Ok([
        ("Lighter's tasks per second, two at a time", lighter.0, lighter.1),
        ("runc's tasks per second, two at a time", runc.0, runc.1),
        (large, figures.large.first, first_start(figures)?),
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

/// Baseline code is made, alone on the machine, and then all is as at the next start.
fn first_start(figures: &Figures) -> Result<f64> {
    let effort = &figures.largest()?.baseline;
    let shared = (effort.cpu_seconds - effort.serial()) / figures.cores as f64;
    Ok(figures.large.next + effort.serial() + shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulation may be off by a third before it says nothing about seconds any more.
    const NEAR: f64 = 1.0 / 3.0;

    #[test]
    fn near_to_what_was_measured() {
        let figures = Figures::kept().expect("figures");
        for (what, measured, simulated) in compare(&figures).expect("comparison") {
            let off = (simulated / measured).ln().abs();
            assert!(off < (1.0 + NEAR).ln(), "{what}: measured {measured:.2}, simulated {simulated:.2}");
        }
    }
}
