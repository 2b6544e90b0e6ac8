//! When something last moved on a request: a piece of its body, or of its response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Shared by all that move pieces of one request, and by those who wait for them.
#[derive(Clone, Debug)]
pub(super) struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
    patience: Option<Duration>,
}

impl Progress {
    /// Begins now. `patience` is how long nothing may move; `None` for as long as it takes.
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self(Arc::new(Inner { start: Instant::now(), last: AtomicU64::new(0), patience }))
    }

    /// Since the request's head came.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }

    /// Something moved.
    pub(super) fn moved(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing has moved for too long.
    pub(super) async fn stalled(self) {
        let Some(patience) = self.0.patience else { return std::future::pending().await };
        loop {
            let last = self.0.last.load(Ordering::Relaxed);
            let deadline = self.0.start + Duration::from_millis(last) + patience;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_waited_for() {
        let progress = Progress::new(Some(Duration::from_secs(1)));
        let mover = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(900)).await;
                progress.moved();
            }
        };
        tokio::join!(mover, progress.clone().stalled());
        assert_eq!(progress.elapsed().as_millis(), 5 * 900 + 1000);
    }
}
