//! What people who run a handler watch, as Prometheus text.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Of the text. Source: the OpenMetrics specification, "Text format".
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from a guest that returns at once to one that is near the default timeout.
const DURATIONS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Upper bounds in seconds: an instance takes microseconds.
const STARTS: [f64; 14] = [
    0.000_002, 0.000_004, 0.000_006, 0.000_008, 0.000_01, 0.000_015, 0.000_02, 0.000_03, 0.000_05, 0.000_1, 0.000_25,
    0.001, 0.01, 0.1,
];

/// A request's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

/// All metrics of one server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Code, Counter<u64, AtomicU64>>,
    /// The one code that nearly all requests have, looked up once.
    succeeded: Counter<u64, AtomicU64>,
    durations: Histogram,
    starts: Histogram,
    traps: Counter<u64, AtomicU64>,
    pub(super) in_flight: Gauge<i64, AtomicI64>,
    pub(super) instances: Gauge<i64, AtomicI64>,
    pub(super) connections: Gauge<i64, AtomicI64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("lighter_http");
        let requests = Family::<Code, Counter<u64, AtomicU64>>::default();
        let succeeded = requests.get_or_create(&Code { code: StatusCode::OK.as_u16() }).clone();
        let durations = Histogram::new(DURATIONS);
        let starts = Histogram::new(STARTS);
        let traps = Counter::default();
        let (in_flight, instances, connections) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("requests", "Requests answered, by status code", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the end of its response",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register_with_unit(
            "instance_start",
            "How long it took to make an instance of the component",
            Unit::Seconds,
            starts.clone(),
        );
        registry.register("traps", "Requests that ended by a trap of the guest's", traps.clone());
        registry.register("requests_in_flight", "Requests that are being answered", in_flight.clone());
        registry.register("instances_live", "Instances of the component", instances.clone());
        registry.register("connections", "Connections of clients", connections.clone());
        Self { registry, requests, succeeded, durations, starts, traps, in_flight, instances, connections }
    }

    /// A request was answered to the end.
    pub(super) fn answered(&self, code: u16, took: Duration) {
        if code == StatusCode::OK.as_u16() {
            self.succeeded.inc();
        } else {
            self.requests.get_or_create(&Code { code }).inc();
        }
        self.durations.observe(took.as_secs_f64());
    }

    pub(super) fn instance_started(&self, took: Duration) {
        self.starts.observe(took.as_secs_f64());
    }

    pub(super) fn trapped(&self) {
        self.traps.inc();
    }

    /// Everything, in OpenMetrics' text format.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // It fails where the writer does, and a string doesn't.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// One more for as long as it lives.
pub(super) struct Counted(Gauge<i64, AtomicI64>);

impl Counted {
    pub(super) fn new(gauge: &Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_what_the_documentation_promises() {
        let metrics = Metrics::new();
        metrics.answered(200, Duration::from_millis(2));
        metrics.answered(500, Duration::from_millis(2));
        metrics.trapped();
        metrics.instance_started(Duration::from_micros(7));
        let counted = Counted::new(&metrics.instances);
        let text = metrics.text();
        drop(counted);
        for line in [
            "lighter_http_requests_total{code=\"200\"} 1",
            "lighter_http_requests_total{code=\"500\"} 1",
            "lighter_http_request_duration_seconds_count 2",
            "lighter_http_request_duration_seconds_bucket{le=\"0.0025\"} 2",
            "lighter_http_instance_start_seconds_bucket{le=\"0.000008\"} 1",
            "lighter_http_traps_total 1",
            "lighter_http_instances_live 1",
            "lighter_http_requests_in_flight 0",
            "lighter_http_connections 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(metrics.text().contains("lighter_http_instances_live 0"));
    }
}
