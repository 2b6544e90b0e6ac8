//! What Prometheus sees.

use std::net::{Ipv4Addr, SocketAddr};

use lighter_tests::{Bed, Suite, free_port, http::Metrics, on_every_suite};

use super::{Guest, SOON, handler::Setup};

on_every_suite! { counts, not_where_requests_go }

fn counts(suite: Suite) {
    let bed = Bed::get(suite);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let handler = Setup::new("metrics", Guest::P2).annotation("http.metrics", &address.to_string()).start(bed);
    bed.on_network(async || {
        let scrape = async || Metrics::scrape(address).await.expect("metrics");
        assert_eq!(scrape().await.sum("lighter_http_requests_total"), 0.0);
        let mut client = handler.connect().await;
        for (path, status) in [("/", 200), ("/", 200), ("/", 200), ("/status/404", 404), ("/trap", 500)] {
            client.get(path).await.expect("an answer").expect(status);
        }
        let metrics = scrape().await;
        for (code, number) in [("200", 3.0), ("404", 1.0), ("500", 1.0)] {
            let name = format!("lighter_http_requests_total{{code=\"{code}\"}}");
            assert_eq!(metrics.get(&name), Some(number), "{metrics:?}");
        }
        assert_eq!(metrics.sum("lighter_http_traps_total"), 1.0, "{metrics:?}");
        assert_eq!(metrics.sum("lighter_http_requests_in_flight"), 0.0, "{metrics:?}");
        for histogram in ["lighter_http_request_duration_seconds", "lighter_http_instance_start_seconds"] {
            assert_eq!(metrics.kind(histogram), Some("histogram"));
            let buckets = metrics.buckets(histogram);
            assert!(buckets.len() > 3 && buckets.is_sorted_by_key(|(_, count)| *count), "{buckets:?}");
            assert_eq!(metrics.get(&format!("{histogram}_count")), Some(5.0), "{metrics:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, 5.0)));
            assert!(metrics.get(&format!("{histogram}_sum")).is_some_and(|sum| sum > 0.0 && sum < SOON.as_secs_f64()));
        }

        let sleeping = async {
            handler.connect().await.get("/sleep?ms=1000").await.expect("an answer").expect(200);
        };
        let looking = async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            let metrics = scrape().await;
            assert_eq!(metrics.get("lighter_http_requests_in_flight"), Some(1.0), "{metrics:?}");
            assert!(metrics.get("lighter_http_instances_live").is_some_and(|live| live >= 1.0), "{metrics:?}");
        };
        tokio::join!(sleeping, looking);
        assert_eq!(scrape().await.sum("lighter_http_requests_total"), 6.0);
    });
}

/// They tell of all requests, and are nobody's who sends one.
fn not_where_requests_go(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = super::Handler::start(bed, "no-metrics", Guest::P2);
    bed.on_network(async || {
        handler.connect().await.get("/metrics").await.expect("an answer").expect(404);
    });
}
