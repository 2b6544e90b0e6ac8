//! Lets instances take turns: a thread that moves the engine's epoch on, on which guests in a loop yield.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::Engine;

/// How long a guest runs before it lets others run.
const TURN: Duration = Duration::from_millis(10);
/// Turns without a guest at work after which the thread sleeps until there is one.
const IDLE_TURNS: u32 = 5;
/// Its stack in bytes; it does next to nothing.
const STACK: usize = 64 << 10;

/// The thread, which ends with the process.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug)]
struct Shared {
    /// Guests that run right now.
    running: AtomicUsize,
    awake: AtomicBool,
}

/// A guest at work.
pub(super) struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared { running: AtomicUsize::new(0), awake: AtomicBool::new(true) });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("ticker".to_owned()).stack_size(STACK);
        let thread = thread.spawn(move || theirs.tick(&engine))?.thread().clone();
        Ok(Self { shared, thread })
    }

    /// Marks a guest as running for as long as the result lives.
    pub(super) fn turn(&self) -> Turn<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if !self.shared.awake.load(Ordering::SeqCst) && !self.shared.awake.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Turn(&self.shared)
    }
}

impl Shared {
    fn tick(&self, engine: &Engine) {
        let mut idle = 0;
        loop {
            thread::sleep(TURN);
            engine.increment_epoch();
            idle = if self.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
            if idle < IDLE_TURNS {
                continue;
            }
            self.awake.store(false, Ordering::SeqCst);
            // Whoever came in between saw a thread that is awake.
            while self.running.load(Ordering::SeqCst) == 0 && !self.awake.load(Ordering::SeqCst) {
                thread::park();
            }
            self.awake.store(true, Ordering::SeqCst);
            idle = 0;
        }
    }
}
