//! The signals that ask `lighter run` to end, and are the guest's.

use std::{future::poll_fn, io, task::Poll};

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// All that a runner acts on.
const FORWARDED: &[Signal] = &[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// From its making on, these signals don't end this process any more.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    /// Takes them over.
    pub(crate) fn new() -> Result<Self> {
        let streams = FORWARDED.iter().map(|name| Ok((*name, signal(SignalKind::from_raw(name.as_raw()))?)));
        Ok(Self(streams.collect::<io::Result<_>>().context("take over signals")?))
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let mut streams = self.0.iter_mut();
            let came = streams
                .find_map(|(name, stream)| matches!(stream.poll_recv(context), Poll::Ready(Some(()))).then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Does `work`, or drops it when a signal comes.
    pub(crate) async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            biased;
            signal = self.next() => Err(signal),
            done = work => Ok(done),
        }
    }
}
