//! What is not HTTP/1.1, or is not quite.

use futures_util::{StreamExt, stream};
use lighter_tests::{Bed, Suite, http::Raw, on_every_suite};

use super::{AT_ONCE, Guest, Handler, SOON, anything, refused, survives};

on_every_suite! { request_lines, header_lines, bodies, smuggling, broken_off_anywhere }

fn request_lines(suite: Suite) {
    let mut cases = Vec::new();
    for line in [
        "",
        " ",
        "GET",
        "GET ",
        "GET /",
        "GET / ",
        "GET / HTTP",
        "GET / HTTP/",
        "GET / HTTP/1",
        "GET / HTTP/1.",
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "GET / HTTP/2.0",
        "GET / HTTP/3.0",
        "GET / HTTP/9.9",
        "GET / HTTP/11.1",
        "GET / HTTP/1.1 ",
        "GET / http/1.1",
        "GET / HTCPCP/1.0",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET / HTTP/1.1\0",
        "GET /\0 HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /a b HTTP/1.1",
        "G\0T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "G{T / HTTP/1.1",
        "G:T / HTTP/1.1",
        "G\"T / HTTP/1.1",
        "/ GET HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1",
        "GET HTTP/1.1",
        "HTTP/1.1 200 OK",
        "\u{feff}GET / HTTP/1.1",
    ] {
        cases.push(refused(format!("line {line:?}"), format!("{line}\r\nhost: here\r\n\r\n")));
    }
    for target in [
        "*",
        "//",
        "/../../etc/passwd",
        "/%",
        "/%0",
        "/%zz",
        "/%00",
        "/?",
        "/#fragment",
        "http://",
        "http://other/",
        "http://here:99999/",
        "here:80",
        "https://here/",
        "ftp://here/",
        "/\u{e4}",
        "?",
        "http://user:password@here/",
        "http://[::1/",
        "http://here:port/",
        ":",
        "::",
        "a",
        "javascript:alert(1)",
    ] {
        for method in ["GET", "OPTIONS", "CONNECT", "PRI", "TRACE", "M", "get"] {
            cases.push(anything(
                format!("{method} {target}"),
                format!("{method} {target} HTTP/1.1\r\nhost: here\r\n\r\n"),
            ));
        }
    }
    for length in [8 << 10, 64 << 10, 1 << 20] {
        cases.push(anything(
            format!("path of {length}"),
            format!("GET /{} HTTP/1.1\r\nhost: here\r\n\r\n", "a".repeat(length)),
        ));
        cases.push(anything(
            format!("method of {length}"),
            format!("{} / HTTP/1.1\r\nhost: here\r\n\r\n", "A".repeat(length)),
        ));
        cases.push(refused(format!("no end after {length}"), "A".repeat(length)));
        cases.push(anything(format!("empty lines, {length}"), "\r\n".repeat(length / 2)));
    }
    survives(suite, "request-lines", 200, cases);
}

fn header_lines(suite: Suite) {
    let with = |lines: &[u8]| [b"GET / HTTP/1.1\r\nhost: here\r\n", lines, b"\r\n\r\n"].concat();
    let mut cases = Vec::new();
    for byte in (0..=b' ').chain([0x7f]).chain(*b"\"(),/;<=>?@[\\]{}") {
        cases.push(anything(format!("{byte:#04x} in a name"), with(&[b"x-a", &[byte][..], b"b: 1"].concat())));
    }
    for byte in [0, b'\r'] {
        cases.push(refused(format!("{byte:#04x} in a value"), with(&[b"x-a: 1", &[byte][..], b"2"].concat())));
    }
    for byte in (1..b' ').filter(|byte| !b"\r\n\t".contains(byte)).chain([0x7f, 0x80, 0xff]) {
        cases.push(anything(format!("{byte:#04x} in a value"), with(&[b"x-a: 1", &[byte][..], b"2"].concat())));
    }
    for line in [
        "x-a : 1",
        ": 1",
        "x-a",
        " x-a: 1",
        "x-a\t: 1",
        "x-a: 1\r\n folded: 2",
        "\u{e4}: 1",
        "x-a:1\r\n:2",
        "x-a: 1\n\nx: 2",
    ] {
        cases.push(anything(format!("{line:?}"), with(line.as_bytes())));
    }
    for name in [
        "host",
        "connection",
        "transfer-encoding",
        "upgrade",
        "te",
        "expect",
        "keep-alive",
        "trailer",
        "http2-settings",
    ] {
        for value in
            ["", "x", "\t", "a,b,,c", "close, keep-alive, upgrade", "100-continue", "trailers", "h2c", "websocket"]
        {
            cases.push(anything(format!("{name}: {value:?}"), with(format!("{name}: {value}").as_bytes())));
        }
    }
    cases.push(anything("no host", "GET / HTTP/1.1\r\n\r\n"));
    cases.push(anything("two hosts", with(b"host: there")));
    cases.push(anything("line feeds only", "GET / HTTP/1.1\nhost: here\n\n"));
    cases.push(anything("carriage returns only", "GET / HTTP/1.1\rhost: here\r\r"));
    for number in [50, 101, 1000, 20_000] {
        let lines: Vec<String> = (0..number).map(|number| format!("x-{number}: {number}")).collect();
        cases.push(anything(format!("{number} headers"), with(lines.join("\r\n").as_bytes())));
    }
    for length in [8 << 10, 100 << 10, 1 << 20, 8 << 20] {
        cases.push(anything(format!("value of {length}"), with(format!("x-a: {}", "b".repeat(length)).as_bytes())));
        cases.push(anything(format!("name of {length}"), with(format!("x-{}: 1", "b".repeat(length)).as_bytes())));
    }
    survives(suite, "header-lines", 150, cases);
}

fn bodies(suite: Suite) {
    let with = |lines: &str, body: &str| format!("POST /echo HTTP/1.1\r\nhost: here\r\n{lines}\r\n\r\n{body}");
    let mut cases = Vec::new();
    for length in [
        "-1",
        "+1",
        "1.0",
        "0x10",
        "1e3",
        "a",
        "1 2",
        "1,2",
        "1, 1",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        " ",
        "",
        "5;",
        "٥",
    ] {
        // Those that are numbers only say that more is to come.
        cases.push(anything(format!("length {length:?}"), with(&format!("content-length: {length}"), "12345")));
    }
    cases.push(refused("two lengths", with("content-length: 5\r\ncontent-length: 6", "123456")));
    cases.push(anything("more than the length", with("content-length: 5", "123456789")));
    for size in [
        "",
        " ",
        "g",
        "-1",
        "+5",
        "0x5",
        "5 5",
        "5,5",
        "ffffffffffffffff",
        "10000000000000000",
        "fffffffffffffffff",
        "5;a=b",
        "5;a=\"b",
        "5;\0",
        "00000000000000000000000000000005",
        "5\t",
        "5;a\nb",
        "\u{e4}",
    ] {
        cases.push(anything(
            format!("chunk {size:?}"),
            with("transfer-encoding: chunked", &format!("{size}\r\nhello\r\n0\r\n\r\n")),
        ));
    }
    for chunks in [
        "5\r\nhello",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhel",
        "0\r\n",
        "0\r\n\r",
        "0\r\nx-sum: 1\r\n\r\n",
        "0\r\n: 1\r\n\r\n",
        "0\r\ncontent-length: 5\r\n\r\n",
        "0\r\nx\0: 1\r\n\r\n",
        "0\r\nhost: there\r\n\r\n",
        "5\r\nhello\r\n\r\n",
        "5\r\nhello\r\n-0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "5\rhello\r0\r\r",
    ] {
        cases.push(anything(format!("chunks {chunks:?}"), with("transfer-encoding: chunked", chunks)));
    }
    for length in [8 << 10, 1 << 20] {
        let (a, trailers) = ("a".repeat(length), "x: y\r\n".repeat(length / 6));
        cases.push(anything(
            format!("extension of {length}"),
            with("transfer-encoding: chunked", &format!("5;{a}\r\nhello\r\n0\r\n\r\n")),
        ));
        cases.push(anything(
            format!("trailers of {length}"),
            with("transfer-encoding: chunked", &format!("0\r\n{trailers}\r\n")),
        ));
        cases.push(anything(
            format!("chunks of one byte, {length}"),
            with("transfer-encoding: chunked", &"1\r\na\r\n".repeat(length / 6)),
        ));
        cases.push(anything(format!("size of {length}"), with("transfer-encoding: chunked", &"0".repeat(length))));
    }
    survives(suite, "bodies", 50, cases);
}

/// Where one server sees one request and another sees two, the second is an attack. `/status/299` hides in each.
fn smuggling(suite: Suite) {
    let hidden = "GET /status/299 HTTP/1.1\r\nhost: here\r\n\r\n";
    let post = |lines: &str, body: &str| format!("POST /sink HTTP/1.1\r\nhost: here\r\n{lines}\r\n\r\n{body}");
    let length = hidden.len();
    let mut cases = vec![
        anything("hidden in a length", post(&format!("content-length: {length}"), hidden)),
        anything(
            "hidden in a chunk",
            post("transfer-encoding: chunked", &format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n")),
        ),
        refused("two lengths", post(&format!("content-length: 0\r\ncontent-length: {length}"), hidden)),
        refused(
            "two lengths, the other order",
            post(&format!("content-length: {length}\r\ncontent-length: 0"), hidden),
        ),
        refused("a list of lengths", post(&format!("content-length: {length}, 0"), hidden)),
    ];
    // What isn't exactly `chunked`, in one header or several, beside a length that covers the hidden one.
    for encoding in [
        "xchunked",
        "chunked-x",
        "identity",
        "gzip",
        "chunked, identity",
        "\"chunked\"",
        "chunked;q=1",
        "chunked\r\ntransfer-encoding: identity",
        "identity\r\ntransfer-encoding: cow",
        " chunked x",
        "chunke\u{11}",
    ] {
        let lines = format!("transfer-encoding: {encoding}\r\ncontent-length: {length}");
        cases.push(anything(format!("{encoding:?} and a length"), post(&lines, hidden)));
    }
    for name in [
        "transfer-encoding ",
        "transfer-encoding\t",
        "transfer\u{2010}encoding",
        " transfer-encoding",
        "x\r\n transfer-encoding",
    ] {
        let lines = format!("content-length: {length}\r\n{name}: chunked");
        cases.push(anything(format!("{name:?} and a length"), post(&lines, hidden)));
    }
    // The length says that the hidden one is of the body, the last chunk that it isn't: RFC 9112 §6.3 has such a
    // connection closed after the answer.
    for lines in [
        format!("content-length: {}\r\ntransfer-encoding: chunked", length + 5),
        format!("transfer-encoding: chunked\r\ncontent-length: {}", length + 5),
        format!("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\ncontent-length: {}", length + 5),
    ] {
        cases.push(anything(format!("{lines:?}"), post(&lines, &format!("0\r\n\r\n{hidden}"))));
    }
    cases.push(refused(
        "an encoding in HTTP/1.0",
        format!("POST /sink HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
    ));
    survives(suite, "smuggling", 20, cases);
}

/// At each byte of a request that is sound, by an end and by a reset.
fn broken_off_anywhere(suite: Suite) {
    let bed = Bed::get(suite);
    let handler = Handler::start(bed, "malformed-broken-off", Guest::P2);
    let plain = "POST /echo HTTP/1.1\r\nhost: here\r\ncontent-type: text/plain\r\ncontent-length: 20\r\n\r\n0123456789abcdefghij";
    let chunked = "POST /sink HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 1\r\n\r\n";
    let offsets = [plain, chunked].into_iter().flat_map(|request| (0..=request.len()).map(move |at| &request[..at]));
    bed.on_network(async || {
        stream::iter(offsets)
            .for_each_concurrent(AT_ONCE, async |bytes| {
                let mut raw = Raw::sent(handler.address, bytes).await.expect("connect");
                raw.finish().await.expect("say that this is all");
                assert!(raw.read_to_end(SOON).await.is_some(), "a request that was broken off stays open: {bytes:?}");
                Raw::sent(handler.address, bytes).await.expect("connect").reset().expect("reset");
            })
            .await;
        handler.assert_serves().await;
    });
    handler.terminate();
    handler.assert_ends(0);
}
