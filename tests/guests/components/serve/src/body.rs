//! Bodies as streams: in no case is more of one in memory than a piece.

use wasip2::{
    http::types::{Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
    io::streams::StreamError,
};

/// The most that `blocking-write-and-flush` takes at once.
const PIECE: usize = 4096;

/// What is asked for in one read.
const READ: u64 = 64 * 1024;

pub(crate) fn echo(request: IncomingRequest, answer: ResponseOutparam) {
    let headers = request.headers();
    let response = OutgoingResponse::new(Fields::from_list(&passed_on(&headers)).expect("valid headers"));
    drop(headers);
    let outgoing = response.body().expect("the body, once");
    ResponseOutparam::set(answer, Ok(response));
    forward(request.consume().expect("the body, once"), outgoing);
}

/// Passes one body on as the other, to its trailers.
pub(crate) fn forward(incoming: IncomingBody, outgoing: OutgoingBody) {
    let input = incoming.stream().expect("the stream, once");
    let output = outgoing.write().expect("the stream, once");
    let whole = loop {
        match output.blocking_splice(&input, READ) {
            Ok(_) => {}
            Err(StreamError::Closed) => break true,
            Err(StreamError::LastOperationFailed(_)) => break false,
        }
    };
    drop((input, output));
    let trailers = IncomingBody::finish(incoming);
    if !whole {
        // A body that breaks off must not look like one that ended.
        return;
    }
    trailers.subscribe().block();
    let trailers = match trailers.get() {
        Some(Ok(Ok(trailers))) => trailers,
        _ => return,
    };
    // Those that came can't be sent: they are not ours.
    let trailers = trailers.map(|fields| Fields::from_list(&fields.entries()).expect("valid trailers"));
    // The client may have gone.
    let _ = OutgoingBody::finish(outgoing, trailers);
}

/// What the answer says of the body as the request said it. HTTP/1.1 has no trailers but those that were announced.
fn passed_on(headers: &Fields) -> Vec<(String, Vec<u8>)> {
    let names = ["content-type", "trailer"];
    names.iter().flat_map(|name| headers.get(name).into_iter().map(|value| (name.to_string(), value))).collect()
}

/// The number of bytes in the request's body.
pub(crate) fn count(request: IncomingRequest) -> u64 {
    let body = request.consume().expect("the body, once");
    let stream = body.stream().expect("the stream, once");
    let mut bytes = 0;
    while let Ok(read) = stream.blocking_skip(READ) {
        bytes += read;
    }
    bytes
}

/// So many bytes, in lines of 64.
pub(crate) fn big(mut left: usize, answer: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the body, once");
    ResponseOutparam::set(answer, Ok(response));
    let piece = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n".repeat(PIECE / 64);
    let stream = body.write().expect("the stream, once");
    let ready = stream.subscribe();
    while left > 0 {
        ready.block();
        // The client may go at any time.
        let Ok(room) = stream.check_write() else { return };
        let now = left.min(room as usize).min(PIECE);
        if stream.write(&piece[..now]).is_err() {
            return;
        }
        left -= now;
    }
    drop(ready);
    if stream.blocking_flush().is_ok() {
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

/// All of it, whatever its length.
pub(crate) fn write_all(body: &OutgoingBody, bytes: &[u8]) {
    let stream = body.write().expect("the stream, once");
    for piece in bytes.chunks(PIECE) {
        // The client may have gone.
        if stream.blocking_write_and_flush(piece).is_err() {
            return;
        }
    }
}
