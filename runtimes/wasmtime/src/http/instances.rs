//! A place, an instance, a call: how a request is answered.

use std::{
    future::poll_fn,
    io::{self, Write},
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use lighter_runtime_api::{Error, Http};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use wasmtime::{Engine, Store};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiBody;

use super::{
    body::Upload,
    call::{Entry, Proxy, Reply},
    metrics::{Counted, Metrics},
    pool::Pool,
    progress::Progress,
    ticker::Ticker,
};
use crate::{
    backend::failed,
    state::{State, World},
};

/// How long an instance waits for its next request before it makes room.
const IDLE: Duration = Duration::from_secs(10);

/// All instances of a handler.
pub(super) struct Instances {
    engine: Engine,
    entry: Entry,
    world: World,
    /// One for each instance that may be at work.
    places: Arc<Semaphore>,
    capacity: u32,
    /// Those that wait for another request, the last one used on top.
    idle: Mutex<Vec<Instance>>,
    /// Requests for each instance.
    reuse: u32,
    ticker: Ticker,
    pub(super) metrics: Arc<Metrics>,
}

struct Instance {
    store: Store<State>,
    proxy: Proxy,
    uses: u32,
    /// When it was last used.
    since: Instant,
    _live: Counted,
}

/// Why a request has no response of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was no place for it in time.
    Busy,
    /// The guest took too long.
    Stalled,
    /// The guest trapped, exited, or said that it can't.
    Failed,
}

impl Instances {
    pub(super) fn new(engine: Engine, entry: Entry, world: World, pool: &Pool, http: &Http) -> Result<Self, Error> {
        let ticker = Ticker::start(engine.clone()).map_err(failed("start a thread"))?;
        Ok(Self {
            engine,
            entry,
            world,
            places: Arc::new(Semaphore::new(usize::try_from(pool.instances).unwrap_or(1))),
            capacity: pool.instances,
            idle: Mutex::new(Vec::new()),
            reuse: http.reuse.get(),
            ticker,
            metrics: Arc::new(Metrics::new()),
        })
    }

    /// Has an instance answer. What the instance does beyond its response's head goes on in a task of its own.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        progress: &Progress,
    ) -> Result<Response<WasiBody>, Failure> {
        let place = self.place(progress).await?;
        let what = What { method: request.method().clone(), uri: request.uri().clone() };
        let (reply, mut answer) = oneshot::channel();
        let request = request.map(|body| Upload { body, progress: progress.clone() });
        let mut work = Box::pin(Arc::clone(self).work(what.clone(), request, reply, place));
        let mut stalled = pin!(progress.clone().stalled());
        let first = poll_fn(|cx| {
            // The guest first: most answer without waiting for anything, and are done then.
            let done = {
                let _turn = self.ticker.turn();
                work.as_mut().poll(cx).is_ready()
            };
            match Pin::new(&mut answer).poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some((done, answer))),
                Poll::Pending => stalled.as_mut().poll(cx).map(|()| None),
            }
        });
        let Some((done, answer)) = first.await else {
            what.tell("the guest took longer than run.lighter.http.timeout allows; its instance was dropped");
            return Err(Failure::Stalled);
        };
        if !done {
            tokio::spawn(Arc::clone(self).rest(what.clone(), work, progress.clone()));
        }
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(code)) => {
                what.tell(&format!("the guest answered with the error {code}"));
                Err(Failure::Failed)
            }
            // The work has said why.
            Err(_) => Err(Failure::Failed),
        }
    }

    /// Waits for a place.
    async fn place(&self, progress: &Progress) -> Result<OwnedSemaphorePermit, Failure> {
        let places = Arc::clone(&self.places);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        tokio::select! {
            place = places.acquire_owned() => place.map_err(|_| Failure::Busy),
            () = progress.clone().stalled() => Err(Failure::Busy),
        }
    }

    /// What is left to do after the response's head.
    async fn rest(self: Arc<Self>, what: What, mut work: Pin<Box<impl Future<Output = ()>>>, progress: Progress) {
        let mut stalled = pin!(progress.stalled());
        let in_time = poll_fn(|cx| {
            let _turn = self.ticker.turn();
            match work.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => stalled.as_mut().poll(cx).map(|()| false),
            }
        });
        if !in_time.await {
            what.tell(
                "nothing moved for longer than run.lighter.http.timeout allows; the guest's instance was dropped",
            );
        }
    }

    /// A guest's work on one request, from its instance to the place's end.
    async fn work(self: Arc<Self>, what: What, request: Request<Upload>, reply: Reply, place: OwnedSemaphorePermit) {
        let idle = self.idle().pop();
        let made = match idle {
            Some(instance) => Ok(instance),
            None => self.instance().await,
        };
        let failure = match made {
            Ok(mut instance) => match instance.proxy.call(&mut instance.store, request, reply).await {
                Ok(()) => {
                    instance.uses += 1;
                    if instance.uses < self.reuse {
                        instance.since = Instant::now();
                        self.idle().push(instance);
                    }
                    None
                }
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            self.tell_failure(&what, &error);
        }
        // Only now, so that whoever takes it finds the instance.
        drop(place);
    }

    async fn instance(&self) -> wasmtime::Result<Instance> {
        let start = Instant::now();
        let live = Counted::new(&self.metrics.instances);
        let mut store = self.world.store(&self.engine);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_epoch_deadline(1);
        let proxy = self.entry.instantiate(&mut store).await?;
        let since = Instant::now();
        self.metrics.instance_started(since - start);
        Ok(Instance { store, proxy, uses: 0, since, _live: live })
    }

    fn tell_failure(&self, what: &What, error: &wasmtime::Error) {
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            what.tell(&format!("the guest ended itself with exit code {}", exit.0));
            return;
        }
        self.metrics.trapped();
        what.tell(&format!("{error:?}"));
    }

    /// Drops instances that wait in vain, for as long as the server runs.
    pub(super) async fn tidy(self: Arc<Self>) {
        if self.reuse == 1 {
            return;
        }
        loop {
            tokio::time::sleep(IDLE).await;
            let used = Instant::now().checked_sub(IDLE);
            let mut idle = self.idle();
            let (stale, fresh) =
                mem::take(&mut *idle).into_iter().partition(|i| used.is_some_and(|used| i.since < used));
            *idle = fresh;
            drop(idle);
            // Outside the lock.
            let stale: Vec<Instance> = stale;
            drop(stale);
        }
    }

    /// Waits until no instance is at work.
    pub(super) async fn finished(&self) {
        // It is never closed.
        let _ = self.places.acquire_many(self.capacity).await;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, as the log names it.
#[derive(Clone, Debug)]
struct What {
    method: Method,
    uri: Uri,
}

impl What {
    /// Says what went wrong, where the container's log is. The client has chosen the path: it is shown without control
    /// characters, which a URI has none of.
    fn tell(&self, message: &str) {
        // A log that is full or gone is no reason not to answer.
        let _ = writeln!(io::stderr(), "lighter: {} {}: {}", self.method, self.uri, message.trim_end());
    }
}
