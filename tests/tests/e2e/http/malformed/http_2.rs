//! Frames of HTTP/2 that there aren't, and more of those that there are than anybody needs.

use lighter_tests::{Suite, on_every_suite};

use super::{anything, survives};

on_every_suite! { frames, abuse }

/// What a client says first. Source: RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2. Source: RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `GET http://a/`, by HPACK's static table and one literal. Source: RFC 7541 appendix A.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn http_2(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let frames: Vec<u8> = frames.into_iter().flatten().collect();
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames].concat()
}

fn frames(suite: Suite) {
    let mut cases = Vec::new();
    // Every kind, those that there aren't as well, on the connection and on streams, with payloads that none has.
    for kind in 0..=12 {
        for stream in [0, 1, 2, 0x7fff_ffff, 0xffff_ffff] {
            for length in [0, 1, 4, 7] {
                let name = format!("kind {kind} on stream {stream} with {length} bytes");
                cases.push(anything(name, http_2([frame(kind, 0, stream, &vec![0xff; length])])));
            }
        }
        cases.push(anything(format!("kind {kind} with all flags"), http_2([frame(kind, 0xff, 1, &[0xff; 16])])));
        let mut oversize = frame(kind, 0, 1, &[]);
        oversize[..3].fill(0xff);
        cases.push(anything(format!("kind {kind} of 16 MiB"), http_2([oversize])));
    }
    for (name, block) in [
        ("an index beyond the table", &[0xff, 0xff, 0xff, 0xff, 0x0f][..]),
        ("index 0", &[0x80]),
        ("half an integer", &[0x41, 0xff]),
        ("a string that is longer than the block", &[0x41, 0x7f, b'a']),
        ("Huffman code that is none", &[0x41, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("a table of 4 GiB", &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("no method", &[0x86, 0x84]),
        ("two methods", &[0x82, 0x83, 0x86, 0x84]),
        ("a pseudo header after others", &[0x86, 0x84, 0x40, 1, b'a', 1, b'b', 0x82]),
        ("a name in capitals", &[0x82, 0x86, 0x84, 0x40, 1, b'A', 1, b'b']),
        ("a line feed in a value", &[0x82, 0x86, 0x84, 0x40, 1, b'a', 1, b'\n']),
        ("an empty path", &[0x82, 0x86, 0x44, 0]),
        ("a response's status", &[0x88]),
    ] {
        cases.push(anything(name, http_2([frame(HEADERS, END_STREAM | END_HEADERS, 1, block)])));
    }
    for settings in [
        &[0, 2, 0, 0, 0, 2][..],
        &[0, 4, 0xff, 0xff, 0xff, 0xff],
        &[0, 5, 0, 0, 0, 0],
        &[0, 1, 0xff, 0xff, 0xff, 0xff],
        &[0, 99, 0, 0, 0, 0],
    ] {
        cases.push(anything(format!("settings {settings:?}"), http_2([frame(SETTINGS, 0, 0, settings)])));
    }
    cases.push(anything("a preface alone", PREFACE));
    cases.push(anything("a preface without settings", [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()));
    cases.push(anything("half a preface", &PREFACE[..10]));
    cases.push(anything("noise after the preface", [PREFACE, &[0xaa; 4096]].concat()));
    survives(suite, "frames", 250, cases);
}

/// Sound frames, more of them than anybody needs.
fn abuse(suite: Suite) {
    let get = |stream: u32| frame(HEADERS, END_STREAM | END_HEADERS, stream, GET);
    let streams = || (0..5000).map(|number| number * 2 + 1);
    let cases = vec![
        anything(
            "streams that are reset at once",
            http_2(streams().flat_map(|id| [get(id), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])])),
        ),
        anything("streams without an end", http_2(streams().map(|id| frame(HEADERS, END_HEADERS, id, GET)))),
        anything("more streams than there may be", http_2(streams().map(get))),
        anything(
            "continuations without an end",
            http_2(
                [frame(HEADERS, END_STREAM, 1, GET)]
                    .into_iter()
                    .chain((0..5000).map(|_| frame(CONTINUATION, 0, 1, &[0x40, 1, b'a', 1, b'b']))),
            ),
        ),
        anything(
            "empty continuations",
            http_2(
                [frame(HEADERS, END_STREAM, 1, GET)]
                    .into_iter()
                    .chain((0..100_000).map(|_| frame(CONTINUATION, 0, 1, &[]))),
            ),
        ),
        anything("pings", http_2((0..50_000).map(|_| frame(PING, 0, 0, &[0; 8])))),
        anything("settings", http_2((0..50_000).map(|_| frame(SETTINGS, 0, 0, &[])))),
        anything(
            "empty data",
            http_2(
                [frame(HEADERS, END_HEADERS, 1, GET)].into_iter().chain((0..100_000).map(|_| frame(DATA, 0, 1, &[]))),
            ),
        ),
        anything(
            "windows beyond their bound",
            http_2((0..10).map(|_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]))),
        ),
        anything(
            "a header of a megabyte from a few bytes",
            http_2([frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb())]),
        ),
    ];
    survives(suite, "abuse", 10, cases);
}

/// One literal of 4 KB into the dynamic table, then a reference to it in each byte.
fn bomb() -> Vec<u8> {
    let mut block = GET.to_vec();
    // A literal with a name of one byte; the value's length, 4000, in HPACK's way: 127 and the rest by seven bits.
    block.extend([0x40, 1, b'a', 0x7f, 0xa1, 0x1e]);
    block.extend(vec![b'b'; 4000]);
    // The newest entry of the dynamic table is 62.
    block.extend(vec![0xbe; 8000]);
    block
}
