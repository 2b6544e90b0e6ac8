//! Discrete events, written as what waits for them: a process is an asynchronous function, and time jumps to the next
//! event. One process runs at a time, and what is due at the same time goes in the order in which it was asked for: so the
//! same input gives the same result.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The number of a process.
pub(crate) type Process = usize;

/// The clock, and who is woken when.
#[derive(Default)]
pub(crate) struct Simulation {
    now: Cell<f64>,
    current: Cell<Process>,
    awake: RefCell<VecDeque<Process>>,
    events: RefCell<BinaryHeap<Reverse<(Duration, u64, Process)>>>,
    queued: Cell<u64>,
}

impl Simulation {
    /// Runs processes, numbered as they come, until nothing is due any more.
    pub(crate) fn run(&self, mut processes: Vec<Pin<Box<dyn Future<Output = ()> + '_>>>) {
        let mut context = Context::from_waker(Waker::noop());
        self.awake.borrow_mut().extend(0..processes.len());
        loop {
            let awake = self.awake.borrow_mut().pop_front();
            let process = match awake {
                Some(process) => process,
                None => match self.events.borrow_mut().pop() {
                    Some(Reverse((at, _, process))) => {
                        self.now.set(at.as_secs_f64());
                        process
                    }
                    None => return,
                },
            };
            self.current.set(process);
            // Who has come to its end is not woken any more.
            let _ = processes[process].as_mut().poll(&mut context);
        }
    }

    /// In seconds.
    pub(crate) fn now(&self) -> f64 {
        self.now.get()
    }

    /// The process that calls.
    pub(crate) fn current(&self) -> Process {
        self.current.get()
    }

    /// Wakes a process that is paused, at once.
    pub(crate) fn wake(&self, process: Process) {
        self.awake.borrow_mut().push_back(process);
    }

    /// Wakes a process that will be paused.
    pub(crate) fn wake_at(&self, at: f64, process: Process) {
        self.queued.set(self.queued.get() + 1);
        // Rounded up: what it waits for must be over by then.
        let at = Duration::from_secs_f64(at) + Duration::from_nanos(1);
        self.events.borrow_mut().push(Reverse((at, self.queued.get(), process)));
    }

    pub(crate) async fn until(&self, at: f64) {
        self.wake_at(at, self.current());
        pause().await;
    }
}

/// Until somebody wakes the process.
pub(crate) async fn pause() {
    let mut paused = false;
    poll_fn(|_| if mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Lets so many in at once, in the order in which they come.
pub(crate) struct Gate {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Process>>,
}

impl Gate {
    pub(crate) fn new(places: usize) -> Self {
        Self { free: Cell::new(places), waiting: RefCell::default() }
    }

    /// Does something inside.
    pub(crate) async fn pass(&self, simulation: &Simulation, inside: impl Future<Output = ()>) {
        match self.free.get().checked_sub(1) {
            Some(free) => self.free.set(free),
            None => {
                self.waiting.borrow_mut().push_back(simulation.current());
                pause().await;
            }
        }
        inside.await;
        let next = self.waiting.borrow_mut().pop_front();
        match next {
            // Who has waited goes on first.
            Some(next) => {
                simulation.wake(next);
                simulation.wake(simulation.current());
                pause().await;
            }
            None => self.free.set(self.free.get() + 1),
        }
    }
}

/// What the first who needs it makes, and the others wait for.
#[derive(Default)]
pub(crate) struct Once {
    begun: Cell<bool>,
    there: Cell<bool>,
    waiting: RefCell<Vec<Process>>,
}

impl Once {
    pub(crate) async fn make(&self, simulation: &Simulation, make: impl Future<Output = ()>) {
        if self.begun.replace(true) {
            return self.wait(simulation).await;
        }
        make.await;
        self.there.set(true);
        self.waiting.take().into_iter().for_each(|process| simulation.wake(process));
    }

    pub(crate) async fn wait(&self, simulation: &Simulation) {
        if !self.there.get() {
            self.waiting.borrow_mut().push(simulation.current());
            pause().await;
        }
    }
}
