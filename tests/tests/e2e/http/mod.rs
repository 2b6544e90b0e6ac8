//! Components that serve HTTP: `wasi:http/incoming-handler` of WASI 0.2 and `wasi:http/handler` of 0.3, under real
//! containerd and Docker, from a client in the bed's network.

mod handler;
mod instances;
mod lifecycle;
mod malformed;
mod metrics;
mod outbound;
mod protocol;
mod slow;
mod streaming;
mod worlds;

use std::time::Duration;

use handler::{Guest, Handler};

/// Far above what an answer takes that is worked on at once, far below any time limit.
const SOON: Duration = Duration::from_secs(5);
