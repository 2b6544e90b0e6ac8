//! Requests that are none: whatever bytes come, the handler lives, and says nothing that it shouldn't.

mod http_1;
mod http_2;

use std::time::Duration;

use futures_util::{StreamExt, stream};
use lighter_tests::{Bed, Suite, http::Raw, on_every_suite};

use super::{Guest, Handler, SOON};

on_every_suite! { other_protocols }

/// Connections at once.
const AT_ONCE: usize = 32;

/// How long a server may take to say something to what it takes for half a request.
const PATIENCE: Duration = Duration::from_millis(300);

/// What has to come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A status of 4xx or 5xx, or the connection's end without a word.
    Refused,
    /// Anything but harm.
    Anything,
}

struct Case {
    name: String,
    bytes: Vec<u8>,
    expect: Expect,
}

fn refused(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
    Case { name: name.into(), bytes: bytes.into(), expect: Expect::Refused }
}

fn anything(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
    Case { name: name.into(), bytes: bytes.into(), expect: Expect::Anything }
}

/// Sends each case on a connection of its own. The handler must answer a good request afterwards, and a few at once.
#[track_caller]
fn survives(suite: Suite, group: &str, at_least: usize, cases: Vec<Case>) {
    assert!(cases.len() >= at_least, "only {} cases of {group}", cases.len());
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, &format!("malformed-{group}"), Guest::P2);
    bed.on_network(async || {
        handler.assert_serves().await;
        stream::iter(&cases)
            .for_each_concurrent(AT_ONCE, async |Case { name, bytes, expect }| {
                let mut raw = Raw::sent(handler.address, bytes).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                let answer = raw.read_available(PATIENCE).await;
                // Nobody asks for this path but a request that is hidden in another.
                assert!(!answer.contains("299"), "{name}: a hidden request was answered: {answer}");
                if *expect == Expect::Refused {
                    let status = answer.split(' ').nth(1).unwrap_or_default();
                    let is_error =
                        answer.starts_with("HTTP/1.") && (status.starts_with('4') || status.starts_with('5'));
                    assert!(answer.is_empty() || is_error, "{name}: {answer:.500}");
                }
            })
            .await;
        handler.assert_serves().await;
    });
    let log = handler.log();
    assert!(!log.contains("panicked"), "{log}");
    handler.terminate();
    handler.assert_ends(0);
}

fn other_protocols(suite: Suite) {
    let mut cases = vec![
        refused("a TLS client hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 505]].concat()),
        refused("an SSH client", "SSH-2.0-OpenSSH_9.9\r\n"),
        refused("SOCKS", [5, 1, 0]),
        refused("PROXY", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nhost: here\r\n\r\n"),
        refused("SMTP", "EHLO here\r\n"),
        refused("Redis", "*1\r\n$4\r\nPING\r\n"),
        anything(
            "an upgrade to HTTP/2",
            "GET / HTTP/1.1\r\nhost: here\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        ),
        anything(
            "an upgrade to a web socket",
            "GET / HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
        ),
        anything("a tunnel", "CONNECT there:443 HTTP/1.1\r\nhost: there:443\r\n\r\n"),
    ];
    // Xorshift: the same noise in each run.
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    for number in 0..64 {
        let length = 1 << (number % 16);
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        cases.push(anything(format!("noise {number}"), bytes));
    }
    for byte in [0, b'\n', b'\r', b' ', 0xff] {
        cases.push(anything(format!("a megabyte of {byte:#04x}"), vec![byte; 1 << 20]));
    }
    survives(suite, "other-protocols", 70, cases);
}
