//! HTTP between a test and a container, over the bed's network.
//!
//! [`Connection`] is a client as it should be, over HTTP/1.1 or HTTP/2; [`Raw`] sends whatever bytes a test makes up.
//! [`Server`] is what a guest's own requests go to. [`Metrics`] reads what Prometheus would.

mod connection;
mod metrics;
mod raw;
mod server;

pub use connection::{Answer, Connection, Pending, RequestBody, Version};
pub use metrics::Metrics;
pub use raw::Raw;
pub use server::{Server, hello};
