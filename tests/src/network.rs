//! A bed's network, for what is not in the bed: a test's own client, its proxy, a tool of the host's.

use std::{
    fs::File,
    panic,
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::Bed;

/// Below those that the kernel gives to who asks for none, above those of the bed's daemons.
const PORTS: u16 = 12_000;

impl Bed {
    /// Calls `act` in a thread that is in the bed's network, as are the threads and the processes that it starts. A panic
    /// goes on in the caller.
    pub fn in_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let init = self.init();
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                enter(init).unwrap_or_else(|error| panic!("{error:#}"));
                act()
            });
            entered.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Runs a future on an event loop of its own in the bed's network. A panic goes on in the caller.
    pub fn on_network<F: Future<Output: Send>>(&self, act: impl FnOnce() -> F + Send) -> F::Output {
        self.in_network(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("an event loop").block_on(act())
        })
    }
}

/// A TCP port that no other test of this process uses.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(PORTS);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Takes this thread into the network of the bed with this pid 1. Threads and processes that it starts are there as well.
pub(crate) fn enter(init: u32) -> Result<()> {
    let network = File::open(format!("/proc/{init}/ns/net")).context("open the bed's network namespace")?;
    setns(network, CloneFlags::CLONE_NEWNET).context("enter the bed's network namespace")
}
