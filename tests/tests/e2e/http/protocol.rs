//! HTTP as clients speak it: both versions, all that they may ask of a connection.

use std::time::Instant;

use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use lighter_tests::{
    Bed, Suite,
    http::{Answer, Raw, Version},
    on_every_suite,
};

use super::{Guest, Handler, SOON};

on_every_suite! {
    handlers_in_rust,
    a_handler_in_javascript,
    a_handler_in_python,
    keep_alive,
    many_streams_of_http_2,
    http_1_0,
    head,
    expect_continue,
    pipelining,
    headers,
}

/// What every handler answers.
#[track_caller]
fn answers(suite: Suite, guest: Guest) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, &format!("hello-{}", guest.slug()), guest);
    bed.on_network(async || {
        for version in Version::ALL {
            let mut client = handler.connect_by(version).await;
            let hello = client.get("/").await.expect("hello").expect(200);
            assert!(hello.text().starts_with("hello"), "{hello}");
            let echo = client.post("/echo", "a body").await.expect("echo").expect(200);
            assert_eq!(echo.text(), "a body", "{echo}");
            client.get("/status/418").await.expect("a status").expect(418);
            client.get("/status/404").await.expect("a status").expect(404);
        }
    });
}

fn handlers_in_rust(suite: Suite) {
    answers(suite, Guest::P2);
    answers(suite, Guest::P3);
}

fn a_handler_in_javascript(suite: Suite) {
    answers(suite, Guest::JavaScript);
}

fn a_handler_in_python(suite: Suite) {
    answers(suite, Guest::Python);
}

fn keep_alive(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "keep-alive", Guest::P2);
    bed.on_network(async || {
        let mut client = handler.connect().await;
        for number in 0..20 {
            client.get(&format!("/status/{}", 200 + number)).await.expect("an answer").expect(200 + number);
        }
        assert!(!client.is_closed());
        // A client that has enough says so.
        let request = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
        let mut raw = Raw::sent(handler.address, request).await.expect("connect");
        let answer = raw.read_to_end(SOON).await.expect("an end of the connection");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello from wasi:http\n"),
            "{answer}"
        );
    });
}

/// At once, not one after the other.
fn many_streams_of_http_2(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "streams", Guest::P2);
    bed.on_network(async || {
        let mut client = handler.connect_by(Version::Http2).await;
        client.get("/").await.expect("an answer").expect(200);
        let start = Instant::now();
        let mut pending = Vec::new();
        for _ in 0..64 {
            let request = client.request("GET", "/sleep?ms=500").body(Empty::new().boxed()).expect("a request");
            pending.push(client.send(request).await.expect("send"));
        }
        for response in join_all(pending).await {
            Answer::of(response.expect("a response")).await.expect("a body").expect(200);
        }
        assert!(start.elapsed() < SOON, "64 times 500 ms took {:?}", start.elapsed());
    });
}

fn http_1_0(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "http-1-0", Guest::P2);
    bed.on_network(async || {
        let mut raw = Raw::sent(handler.address, "GET / HTTP/1.0\r\n\r\n").await.expect("connect");
        let answer = raw.read_to_end(SOON).await.expect("an end of the connection");
        assert!(
            answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello from wasi:http\n"),
            "{answer}"
        );
        // A body of unknown length ends with the connection, not in chunks, which this client doesn't know.
        let mut raw = Raw::sent(handler.address, "GET /big?mb=1 HTTP/1.0\r\n\r\n").await.expect("connect");
        let answer = raw.read_to_end(SOON).await.expect("an end of the connection");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(!head.contains("chunked"), "{head}");
        assert_eq!(body.len(), 1 << 20);
    });
}

fn head(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "head", Guest::P2);
    bed.on_network(async || {
        for version in Version::ALL {
            let mut client = handler.connect_by(version).await;
            for path in ["/", "/big?mb=1"] {
                let request = client.request("HEAD", path).body(Empty::new().boxed()).expect("a request");
                let answer = client.exchange(request).await.expect("an answer").expect(200);
                assert!(answer.body.is_empty(), "{answer}");
            }
            // The connection is in step still.
            client.get("/status/201").await.expect("an answer").expect(201);
        }
    });
}

fn expect_continue(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "continue", Guest::P2);
    bed.on_network(async || {
        let head = "POST /sink HTTP/1.1\r\nhost: here\r\nexpect: 100-continue\r\ncontent-length: 6\r\nconnection: close\r\n\r\n";
        let mut raw = Raw::sent(handler.address, head).await.expect("connect");
        let interim = raw.read_head(SOON).await.expect("leave to go on");
        assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
        raw.send("a body").await.expect("send the body");
        let answer = raw.read_to_end(SOON).await.expect("an end of the connection");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("6\n"), "{answer}");
    });
}

/// Answers come in the order of the requests.
fn pipelining(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "pipelining", Guest::P2);
    bed.on_network(async || {
        let mut requests = "GET /sleep?ms=100 HTTP/1.1\r\nhost: here\r\n\r\n".to_owned();
        for status in 201..=206 {
            requests += &format!("GET /status/{status} HTTP/1.1\r\nhost: here\r\n\r\n");
        }
        requests += "POST /echo HTTP/1.1\r\nhost: here\r\ncontent-length: 3\r\n\r\nend";
        requests += "GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
        let mut raw = Raw::sent(handler.address, requests).await.expect("connect");
        let answers = raw.read_to_end(SOON).await.expect("an end of the connection");
        let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "201", "202", "203", "204", "205", "206", "200", "200"], "{answers}");
    });
}

/// As they were sent, but for those that are the connection's.
fn headers(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "headers", Guest::P2);
    bed.on_network(async || {
        for version in Version::ALL {
            let mut client = handler.connect_by(version).await;
            let request =
                client.request("GET", "/headers").header("x-one", "1").header("x-two", "a").header("x-two", "b");
            let answer = client.exchange(request.body(Empty::new().boxed()).expect("a request")).await;
            let answer = answer.expect("an answer").expect(200);
            for line in ["x-one: 1", "x-two: a", "x-two: b"] {
                assert!(answer.text().lines().any(|found| found == line), "no {line:?}\n{answer}");
            }
            for name in ["connection:", "transfer-encoding:", "keep-alive:", "upgrade:"] {
                assert!(!answer.text().lines().any(|found| found.starts_with(name)), "{answer}");
            }
        }
    });
}
