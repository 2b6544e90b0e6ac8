//! An instance a request: what one does is not seen by the next, and what ends one ends nothing else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lighter_tests::{
    Bed, Suite,
    http::{Connection, Metrics},
    on_every_suite,
};

use super::{Guest, Handler, SOON, handler::Setup};
use crate::container::Container;

on_every_suite! {
    fresh_for_each_request,
    reused_where_asked_for,
    time_limit,
    memory_limit,
    concurrency_limit,
    traps,
    exits,
    output,
    output_under_docker,
}

async fn count(client: &mut Connection) -> u32 {
    let answer = client.get("/counter").await.expect("an answer").expect(200);
    answer.text().trim().parse().unwrap_or_else(|_| panic!("no number: {answer}"))
}

fn fresh_for_each_request(suite: Suite) {
    let bed = Bed::get(suite);
    for guest in [Guest::P2, Guest::P3] {
        let handler = Handler::start(bed, &format!("fresh-{}", guest.slug()), guest);
        bed.on_network(async || {
            let mut client = handler.connect().await;
            for _ in 0..20 {
                assert_eq!(count(&mut client).await, 1);
            }
            let one_each = async || count(&mut handler.connect().await).await;
            assert_eq!(join_all((0..20).map(|_| one_each())).await, [1; 20]);
        });
    }
}

fn reused_where_asked_for(suite: Suite) {
    let bed = Bed::get(suite);
    for guest in [Guest::P2, Guest::P3] {
        let counts = |reuse: &str, requests: usize| {
            let handler = Setup::new(&format!("reuse-{}-{reuse}", guest.slug()), guest).annotation("http.reuse", reuse);
            let handler = handler.start(bed);
            bed.on_network(async || {
                let mut client = handler.connect().await;
                let mut counts = Vec::new();
                for _ in 0..requests {
                    counts.push(count(&mut client).await);
                }
                counts
            })
        };
        // One of WASI 0.3 may still be at work on its last answer's end when the next request comes to another.
        let (always, thrice) = (counts("true", 20), counts("3", 20));
        assert!(always.iter().any(|count| *count > 5), "{guest:?}: {always:?}");
        assert!(thrice.contains(&2) && thrice.iter().all(|count| *count <= 3), "{guest:?}: {thrice:?}");
    }
}

/// In a call that waits, and in a busy loop; beside both, others are served.
fn time_limit(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Setup::new("time-limit", Guest::P2).annotation("http.timeout", "500ms").start(bed);
    bed.on_network(async || {
        for path in ["/sleep?ms=20000", "/spin"] {
            let start = Instant::now();
            let long = async || {
                let answer = handler.connect().await.get(path).await.expect("an answer").expect(504);
                assert!(start.elapsed() >= Duration::from_millis(500), "{:?}\n{answer}", start.elapsed());
            };
            let others = async {
                // As many as there are processors, and more.
                tokio::time::sleep(Duration::from_millis(50)).await;
                handler.assert_serves().await;
                start.elapsed()
            };
            let (_, others) = tokio::join!(join_all((0..4).map(|_| long())), others);
            assert!(start.elapsed() < SOON, "{path} took {:?}", start.elapsed());
            assert!(others < SOON, "others took {others:?} beside {path}");
        }
        handler.assert_serves().await;
    });
    let handler = Setup::new("time-limit-p3", Guest::P3).annotation("http.timeout", "500ms").start(bed);
    bed.on_network(async || {
        handler.connect().await.get("/sleep?ms=20000").await.expect("an answer").expect(504);
        handler.assert_serves().await;
    });
}

fn memory_limit(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Setup::new("memory-limit", Guest::P2).annotation("http.memory", "32Mi").start(bed);
    bed.on_network(async || {
        let mut client = handler.connect().await;
        for _ in 0..3 {
            client.get("/alloc?mb=16").await.expect("an answer").expect(200);
            client.get("/alloc?mb=40").await.expect("an answer").expect(507);
        }
        handler.assert_serves().await;
    });
}

/// Those above it wait for their turn.
fn concurrency_limit(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Setup::new("concurrency", Guest::P2).annotation("http.concurrency", "2").start(bed);
    bed.on_network(async || {
        let start = Instant::now();
        let sleep = async || handler.connect().await.get("/sleep?ms=400").await.expect("an answer").status;
        let statuses = join_all((0..6).map(|_| sleep())).await;
        assert_eq!(statuses, [200; 6]);
        assert!(start.elapsed() >= Duration::from_millis(1200), "six of 400 ms by twos took {:?}", start.elapsed());
        handler.assert_serves().await;
    });
}

fn traps(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "traps", Guest::P2);
    bed.on_network(async || {
        for path in ["/trap", "/panic"] {
            // A client learns that it failed, and nothing of what is inside.
            let answer = handler.connect().await.get(path).await.expect("an answer").expect(500);
            assert!(!answer.text().contains("unreachable") && !answer.text().contains("wasm"), "{answer}");
        }
        handler.assert_serves().await;
    });
    handler.wait_for_log(&["unreachable", "serve::trap", "the handler panics on purpose"]);
    let handler = Handler::start(bed, "traps-p3", Guest::P3);
    bed.on_network(async || {
        handler.connect().await.get("/trap").await.expect("an answer").expect(500);
        handler.assert_serves().await;
    });
    handler.wait_for_log(&["unreachable"]);
}

/// Of the instance, not of the server.
fn exits(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "exits", Guest::P2);
    bed.on_network(async || {
        for code in [0, 3] {
            handler.connect().await.get(&format!("/exit?code={code}")).await.expect("an answer").expect(500);
        }
        handler.assert_serves().await;
    });
}

fn output(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "output", Guest::P2);
    bed.on_network(async || {
        handler.connect().await.get("/log").await.expect("an answer").expect(200);
    });
    handler.wait_for_log(&["logged to stdout\n", "logged to stderr\n"]);
}

fn output_under_docker(suite: Suite) {
    let bed = Bed::get(suite);
    let (port, metrics) = (lighter_tests::free_port(), lighter_tests::free_port());
    let address = format!("run.lighter.http.address=127.0.0.1:{port}");
    let metrics_address = format!("run.lighter.http.metrics=127.0.0.1:{metrics}");
    let flags = ["--network", "host", "--annotation", &address, "--annotation", &metrics_address];
    let docker = Container::detach(bed, "handler-output", &Guest::P2.component(), &flags, &[]);
    bed.on_network(async || {
        // Docker starts the task before it returns.
        let client = Connection::open(([127, 0, 0, 1], port).into(), lighter_tests::http::Version::Http1).await;
        let mut client = client.expect("connect");
        client.get("/log").await.expect("an answer").expect(200);
        client.get("/trap").await.expect("an answer").expect(500);
        let metrics = Metrics::scrape(([127, 0, 0, 1], metrics).into()).await.expect("metrics");
        assert_eq!(metrics.sum("lighter_http_requests_total"), 2.0, "{metrics:?}");
    });
    docker.wait_for_log("logged to stdout");
    let logs = docker.docker("logs", &[]).ok();
    assert_eq!(logs.stdout, "logged to stdout\n");
    assert!(logs.stderr.contains("logged to stderr\n") && logs.stderr.contains("unreachable"), "{logs}");
    let start = Instant::now();
    docker.docker("stop", &[]).ok();
    assert!(start.elapsed() < SOON, "docker stop took {:?}", start.elapsed());
    assert_eq!(docker.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
}
