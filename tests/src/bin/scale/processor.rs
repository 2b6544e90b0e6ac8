//! A node's cores, shared by what runs on them as the kernel's scheduler shares them: evenly, and what is idle by policy
//! gets what others leave.

/// Seconds of CPU time below which work counts as done: times are whole nanoseconds.
const DONE: f64 = 1e-6;

/// Work that takes CPU time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// Seconds of it.
    pub(crate) seconds: f64,
    /// On so many cores at most.
    pub(crate) width: f64,
    /// Of the idle policy (`SCHED_IDLE`).
    pub(crate) idle: bool,
}

/// The cores, and what runs on them; `T` tells it apart.
#[derive(Debug)]
pub(crate) struct Processor<T> {
    cores: f64,
    running: Vec<Running<T>>,
    /// When the work left was last brought up to date.
    at: f64,
}

#[derive(Debug)]
struct Running<T> {
    what: T,
    work: Work,
    /// Cores that it has now.
    rate: f64,
}

impl<T> Processor<T> {
    pub(crate) fn new(cores: usize) -> Self {
        Self { cores: cores as f64, running: Vec::new(), at: 0.0 }
    }

    pub(crate) fn add(&mut self, now: f64, what: T, work: Work) {
        self.advance(now);
        self.running.push(Running { what, work, rate: 0.0 });
        self.share();
    }

    /// Takes out what is done by now.
    pub(crate) fn done(&mut self, now: f64) -> Vec<T> {
        self.advance(now);
        let done = self.running.extract_if(.., |running| running.work.seconds <= DONE);
        let done = done.map(|running| running.what).collect();
        self.share();
        done
    }

    /// When the next work will be done if nothing changes.
    pub(crate) fn next(&self) -> Option<f64> {
        let ends = self.running.iter().filter(|running| running.rate > 0.0);
        ends.map(|running| self.at + running.work.seconds / running.rate).min_by(f64::total_cmp)
    }

    fn advance(&mut self, now: f64) {
        for running in &mut self.running {
            running.work.seconds -= running.rate * (now - self.at);
        }
        self.at = now;
    }

    /// Gives each its width at most, and what is left over evenly to the wider ones.
    fn share(&mut self) {
        let mut left = self.cores;
        for idle in [false, true] {
            let mut class: Vec<_> = self.running.iter_mut().filter(|running| running.work.idle == idle).collect();
            class.sort_by(|a, b| a.work.width.total_cmp(&b.work.width));
            let mut waiting = class.len();
            for running in class {
                running.rate = running.work.width.min(left / waiting as f64);
                left = (left - running.rate).max(0.0);
                waiting -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts all at once; returns who ends when.
    fn run(cores: usize, works: &[Work]) -> Vec<(usize, f64)> {
        let mut processor = Processor::new(cores);
        works.iter().enumerate().for_each(|(number, work)| processor.add(0.0, number, *work));
        let mut ends = Vec::new();
        while let Some(now) = processor.next() {
            ends.extend(processor.done(now).into_iter().map(|who| (who, (now * 1e3).round() / 1e3)));
        }
        ends
    }

    #[test]
    fn cores_are_shared() {
        let work = |seconds, width, idle| Work { seconds, width, idle };
        let (narrow, wide, idle) = (work(1.0, 1.0, false), work(4.0, 4.0, false), work(2.0, 2.0, true));
        type Case<'a> = (&'a str, usize, &'a [Work], &'a [(usize, f64)]);
        let table: [Case<'_>; 6] = [
            ("alone", 2, &[narrow], &[(0, 1.0)]),
            ("a core each", 2, &[narrow, narrow], &[(0, 1.0), (1, 1.0)]),
            ("half a core each", 1, &[narrow, narrow], &[(0, 2.0), (1, 2.0)]),
            ("as wide as the cores", 2, &[wide], &[(0, 2.0)]),
            ("the wide one takes what is left", 4, &[narrow, wide], &[(0, 1.0), (1, 1.25)]),
            ("idle work gets what is left", 2, &[wide, idle], &[(0, 2.0), (1, 3.0)]),
        ];
        for (name, cores, works, ends) in table {
            assert_eq!(run(cores, works), ends, "{name}");
        }
    }
}
