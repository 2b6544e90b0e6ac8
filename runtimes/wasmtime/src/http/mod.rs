//! HTTP handlers: components that answer requests, each in an instance of its own from a pool.
//!
//! ```text
//! server ── accept ─ connection ─ request ─▶ instances ── a place ─ an instance ─▶ call ── head ─▶ response
//!                                                                                   └──── body ─▶ (streamed)
//! ```
//!
//! A guest's work and its response are two things: the response's head may come long before the guest is done, and most
//! guests are done when it comes. So the work is polled where the request came in, and becomes a task of its own only where
//! it has to wait. What is stuck for too long, by whose fault whatever, is dropped together with its instance.
//! Must not know: containers.

mod body;
mod call;
mod ends;
mod instances;
mod metrics;
mod pool;
mod progress;
mod server;
mod ticker;

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, thread};

use lighter_runtime_api::{Code, Error, Guest, MemoryBound, Network, Outcome, Ready};
use lighter_wasmtime_engine::Profile;
use tokio::runtime::Builder;
use wasmtime::{Engine, component::Component};

use self::{call::Entry, instances::Instances, pool::Pool};
use crate::{
    backend::{failed, one_line},
    component,
    state::{Prepared, Role, World},
};

/// A handler whose imports are resolved, with a pool for its instances.
pub(crate) struct Handler {
    engine: Engine,
    entry: Entry,
    prepared: Prepared,
    pool: Pool,
}

impl Handler {
    /// `component` was loaded to see what it is; `code` is loaded once more into an engine with a pool of its size.
    pub(crate) fn new(profile: Profile, component: &Component, code: &Code, guest: &Guest) -> Result<Self, Error> {
        let pool = Pool::new(component.resources_required().as_ref(), guest);
        let engine = lighter_wasmtime_engine::pooled(profile, pool.config())
            .map_err(failed("reserve address space for instances"))?;
        let component = component::deserialize(&engine, code)
            .map_err(|error| Error::StaleCode { path: code.path.clone(), why: one_line(&error) })?;
        let prepared = Prepared::new(&component);
        let entry = Entry::new(prepared.linker(&engine)?.instantiate_pre(&component))?;
        Ok(Self { engine, entry, prepared, pool })
    }

    /// Whether it is for WASI 0.3.
    pub(crate) fn is_third(&self) -> bool {
        matches!(self.entry, Entry::Async(_))
    }

    /// Serves until SIGTERM or SIGINT, in the sealed init.
    pub(crate) fn serve(self, guest: &Guest, memory: MemoryBound, ready: Ready) -> Result<Outcome, Error> {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let granted = guest.cpus.map_or(cpus, |granted| usize::try_from(granted.get()).unwrap_or(cpus));
        let mut event_loop = match cpus.min(granted) {
            1 => Builder::new_current_thread(),
            threads => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(threads);
                builder
            }
        };
        let event_loop = event_loop.enable_all().thread_name("http").build().map_err(failed("start event loop"))?;
        let world = World::open(self.prepared, guest, memory, Role::Handler)?;
        let instances = Instances::new(self.engine, self.entry, world, &self.pool, &guest.http)?;
        event_loop.block_on(server::run(Arc::new(instances), &guest.http, self.pool.connections, ready))?;
        // Who is still at work has nobody left to answer to.
        event_loop.shutdown_background();
        Ok(Outcome::Exited(0))
    }
}

/// Which sockets it takes to serve: the guest's, and the server's own.
pub(crate) fn sockets(guest: &Guest) -> Network {
    let own = || [Some(guest.http.address), guest.http.metrics].into_iter().flatten();
    match &guest.grants.network {
        Network::All => Network::All,
        Network::None => Network::Listen(own().collect()),
        Network::Listen(granted) => {
            let granted: Vec<SocketAddr> = granted.iter().copied().chain(own()).collect();
            Network::Listen(granted)
        }
    }
}
