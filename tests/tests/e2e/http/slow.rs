//! Clients that hold a connection and do nothing with it: others are served, memory is bounded, and they are cut off.

use std::time::{Duration, Instant};

use lighter_tests::{Bed, Suite, http::Raw, on_every_suite};

use super::{Guest, Handler, SOON, handler::Setup};

on_every_suite! { heads_that_do_not_end, bodies_that_do_not_end, clients_that_do_not_read, idle_connections }

const CLIENTS: usize = 100;

/// The time limit of a request in these tests.
const LIMIT: Duration = Duration::from_secs(2);

/// What so many connections may take: a few buffers each, and an instance.
const EACH: u64 = 1 << 20;

/// Within which a client that sends half a head is cut off, whatever the limit of its request would be.
const HEAD_WITHIN: Duration = Duration::from_secs(80);

/// Lets `CLIENTS` clients send this and stop there, while others are served.
#[track_caller]
fn while_slow(suite: Suite, id: &str, bytes: &str, cut_within: Duration) {
    let bed = Bed::get(suite);
    let handler = Setup::new(id, Guest::P2).annotation("http.timeout", "2s").start(bed);
    bed.on_network(async || {
        handler.assert_serves().await;
        let (before, _) = handler.resident();
        let mut slow = Vec::new();
        for _ in 0..CLIENTS {
            slow.push(Raw::sent(handler.address, bytes).await.expect("connect"));
        }
        for _ in 0..10 {
            let start = Instant::now();
            handler.assert_serves().await;
            assert!(start.elapsed() < SOON, "two answers took {:?} beside slow clients", start.elapsed());
            tokio::time::sleep(LIMIT / 20).await;
        }
        let (_, peak) = handler.resident();
        let most = before + CLIENTS as u64 * EACH;
        assert!(peak < most, "{} MiB resident, more than {} MiB", peak >> 20, most >> 20);
        // A client that reads is no longer slow: first let the limit go by.
        let deadline = Instant::now() + cut_within;
        tokio::time::sleep(LIMIT * 2).await;
        for client in &mut slow {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = client.read_to_end(left).await;
            let answer = answer.unwrap_or_else(|| panic!("a slow client is still there after {cut_within:?}"));
            assert!(!answer.contains("200 OK") || answer.len() < 32 << 20, "an answer of {} bytes", answer.len());
        }
        handler.assert_serves().await;
    });
    handler.terminate();
    handler.assert_ends(0);
}

fn heads_that_do_not_end(suite: Suite) {
    while_slow(suite, "slow-head", "GET / HTTP/1.1\r\nhost: here\r\nx-sl", HEAD_WITHIN);
}

fn bodies_that_do_not_end(suite: Suite) {
    let head = "POST /sink HTTP/1.1\r\nhost: here\r\ncontent-length: 1000000\r\n\r\nthe first bytes";
    while_slow(suite, "slow-body", head, LIMIT + SOON);
}

/// What they asked for waits in the handler, not in memory.
fn clients_that_do_not_read(suite: Suite) {
    while_slow(suite, "slow-reader", "GET /big?mb=32 HTTP/1.1\r\nhost: here\r\n\r\n", LIMIT + SOON);
}

/// They cost little, and SIGTERM doesn't wait for them.
fn idle_connections(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "idle", Guest::P2);
    bed.on_network(async || {
        handler.assert_serves().await;
        let (before, _) = handler.resident();
        let mut idle = Vec::new();
        for _ in 0..1000 {
            idle.push(Raw::open(handler.address).await.expect("connect"));
        }
        handler.assert_serves().await;
        let (_, peak) = handler.resident();
        assert!(peak < before + (64 << 20), "{} MiB resident, {} MiB before", peak >> 20, before >> 20);
        let start = Instant::now();
        handler.terminate();
        for client in &mut idle {
            assert_eq!(client.read_to_end(SOON).await.as_deref(), Some(""), "an idle connection was left open");
        }
        assert!(start.elapsed() < SOON, "idle connections took {:?} to close", start.elapsed());
    });
    handler.assert_ends(0);
}
