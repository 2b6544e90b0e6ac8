//! How a guest is served that turns out to be an HTTP handler: `run.lighter.http.*`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What the annotations say of a handler. Other guests heed [`Self::allowed_hosts`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Where requests are accepted.
    pub address: SocketAddr,
    /// Where metrics are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Requests that one instance answers, one after the other, before it makes way for a fresh one.
    pub reuse: NonZeroU32,
    /// From a request's head to the end of its response; `None` for as long as it takes.
    pub timeout: Option<Duration>,
    /// Bound on one instance's linear memory in bytes; `None` where the guest's own is the only one.
    pub memory: Option<u64>,
    /// Requests that are worked on at once; `None` for as many as the memory takes.
    pub concurrency: Option<NonZeroU32>,
    /// Hosts to which HTTP requests may go out; `None` for all that the network reaches.
    pub allowed_hosts: Option<Vec<HostPattern>>,
}

/// One word of `run.lighter.http.allowed-hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPattern {
    /// In lower case; an IPv6 address stands in brackets. A leading `*.` stands for one label or more.
    pub host: String,
    /// `None` for every port.
    pub port: Option<u16>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            metrics: None,
            reuse: NonZeroU32::MIN,
            timeout: Some(Duration::from_secs(60)),
            memory: None,
            concurrency: None,
            allowed_hosts: None,
        }
    }
}
