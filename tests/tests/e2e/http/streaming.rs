//! Bodies as streams, both ways, whatever their size.

use bytes::Bytes;
use http_body_util::{BodyExt, Channel, channel::Sender};
use hyper::{HeaderMap, Response, body::Incoming};
use lighter_tests::{
    Bed, Suite,
    http::{Connection, Version},
    on_every_suite,
};
use tokio::time::timeout;

use super::{Guest, Handler, SOON, handler::Setup};

on_every_suite! { echo_while_it_is_sent, trailers, a_gigabyte_in, a_gigabyte_out, a_gigabyte_through }

const GIB: u64 = 1 << 30;
const PIECE: usize = 256 << 10;

/// What a connection may hold of a body: buffers of the server, the engine and the guest.
const BUFFERED: u64 = 48 << 20;

/// Posts a body that is yet to come.
async fn post(client: &mut Connection, path: &str) -> (Sender<Bytes>, tokio::task::JoinHandle<Response<Incoming>>) {
    let (sender, body) = Channel::new(1);
    let request = client.request("POST", path).header("te", "trailers").header("trailer", "x-sum");
    let pending = client.send(request.body(body.boxed()).expect("a request")).await.expect("send");
    (sender, tokio::spawn(async { pending.await.expect("a response") }))
}

async fn next(response: &mut Response<Incoming>) -> String {
    let frame = timeout(SOON, response.frame()).await.expect("a frame in time").expect("a frame").expect("a body");
    String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
}

/// The first byte comes back before the last is sent.
fn echo_while_it_is_sent(suite: Suite) {
    let bed = Bed::get(suite);
    for guest in [Guest::P2, Guest::P3] {
        let handler = Handler::start(bed, &format!("echo-{}", guest.slug()), guest);
        bed.on_network(async || {
            for version in Version::ALL {
                let mut client = handler.connect_by(version).await;
                let (mut body, response) = post(&mut client, "/echo").await;
                body.send_data("first".into()).await.expect("send");
                let mut response = timeout(SOON, response).await.expect("a head in time").expect("a head");
                assert_eq!(next(&mut response).await, "first", "{guest:?} over {version:?}");
                for piece in ["second", "third"] {
                    body.send_data(piece.into()).await.expect("send");
                    assert_eq!(next(&mut response).await, piece, "{guest:?} over {version:?}");
                }
                drop(body);
                let rest = timeout(SOON, response.collect()).await.expect("an end in time").expect("an end");
                assert!(rest.to_bytes().is_empty());
            }
        });
    }
}

fn trailers(suite: Suite) {
    let bed = Bed::get(suite);
    for guest in [Guest::P2, Guest::P3] {
        let handler = Handler::start(bed, &format!("trailers-{}", guest.slug()), guest);
        bed.on_network(async || {
            for version in Version::ALL {
                let mut client = handler.connect_by(version).await;
                let (mut body, response) = post(&mut client, "/echo").await;
                body.send_data("a body".into()).await.expect("send");
                let trailers =
                    HeaderMap::from_iter([("x-sum".parse().expect("a name"), "42".parse().expect("a value"))]);
                body.send_trailers(trailers).await.expect("send");
                drop(body);
                let response = timeout(SOON, response).await.expect("a head in time").expect("a head");
                let answer = timeout(SOON, response.collect()).await.expect("an end in time").expect("an end");
                let sum = answer.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
                assert_eq!(sum.as_ref().map(|sum| sum.as_bytes()), Some(&b"42"[..]), "{guest:?} over {version:?}");
                assert_eq!(answer.to_bytes(), "a body");
            }
        });
    }
}

/// Starts a handler that may take as long as it likes, and returns it with what it may grow to.
#[track_caller]
fn patient<'bed>(bed: &'bed Bed, what: &str, guest: Guest) -> (Handler<'bed>, u64) {
    let handler = Setup::new(&format!("{what}-{}", guest.slug()), guest).annotation("http.timeout", "none").start(bed);
    // What a first request makes resident is there before.
    bed.on_network(async || handler.assert_serves().await);
    let (resident, _) = handler.resident();
    (handler, resident + BUFFERED)
}

#[track_caller]
fn assert_flat(handler: &Handler<'_>, most: u64) {
    let (_, peak) = handler.resident();
    assert!(peak < most, "{} had {} MiB resident, more than {} MiB", handler.id, peak >> 20, most >> 20);
}

async fn send(mut body: Sender<Bytes>, mut bytes: u64) {
    let piece = Bytes::from(vec![b'x'; PIECE]);
    while bytes > 0 {
        let now = bytes.min(PIECE as u64);
        body.send_data(piece.slice(..now as usize)).await.expect("send");
        bytes -= now;
    }
}

async fn receive(mut response: Response<Incoming>) -> u64 {
    let mut bytes = 0;
    while let Some(frame) = response.frame().await {
        bytes += frame.expect("a body").into_data().map_or(0, |data| data.len() as u64);
    }
    bytes
}

fn a_gigabyte_in(suite: Suite) {
    let bed = Bed::get(suite);
    for (guest, version) in [(Guest::P2, Version::Http1), (Guest::P3, Version::Http2)] {
        let (handler, most) = patient(bed, "in", guest);
        bed.on_network(async || {
            let mut client = handler.connect_by(version).await;
            let (body, response) = post(&mut client, "/sink").await;
            send(body, GIB).await;
            let counted = response.await.expect("a head").collect().await.expect("a body").to_bytes();
            assert_eq!(counted, format!("{GIB}\n"), "{guest:?} over {version:?}");
        });
        assert_flat(&handler, most);
    }
}

fn a_gigabyte_out(suite: Suite) {
    let bed = Bed::get(suite);
    for (guest, version) in [(Guest::P2, Version::Http2), (Guest::P3, Version::Http1)] {
        let (handler, most) = patient(bed, "out", guest);
        bed.on_network(async || {
            let mut client = handler.connect_by(version).await;
            let (body, response) = post(&mut client, "/big?mb=1024").await;
            drop(body);
            assert_eq!(receive(response.await.expect("a head")).await, GIB, "{guest:?} over {version:?}");
        });
        assert_flat(&handler, most);
    }
}

fn a_gigabyte_through(suite: Suite) {
    let bed = Bed::get(suite);
    for (guest, version) in [(Guest::P2, Version::Http1), (Guest::P3, Version::Http2)] {
        let (handler, most) = patient(bed, "through", guest);
        bed.on_network(async || {
            let mut client = handler.connect_by(version).await;
            let (body, response) = post(&mut client, "/echo").await;
            let sent = tokio::spawn(send(body, GIB));
            assert_eq!(receive(response.await.expect("a head")).await, GIB, "{guest:?} over {version:?}");
            sent.await.expect("all sent");
        });
        assert_flat(&handler, most);
    }
}
