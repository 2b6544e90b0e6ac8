//! Bodies as streams: in no case is more of one in memory than a piece.

use wasip3::{
    http::types::{ErrorCode, Fields, Request, Response, Trailers},
    spawn_local,
    wit_bindgen::{FutureReader, StreamReader, StreamResult, StreamWriter},
    wit_future, wit_stream,
};

/// What is read or written at once.
const PIECE: usize = 64 * 1024;

/// The two ends of a body that goes out, the response that takes them on.
struct Outgoing {
    stream: StreamWriter<u8>,
    trailers: wasip3::wit_bindgen::FutureWriter<Result<Option<Trailers>, ErrorCode>>,
    response: Response,
}

impl Outgoing {
    fn new(headers: Fields) -> Outgoing {
        let (stream, contents) = wit_stream::new();
        // Where the task that writes the body ends early, the body breaks off.
        let (trailers, promise) = wit_future::new(|| Err(ErrorCode::InternalError(None)));
        let (response, _transmitted) = Response::new(headers, Some(contents), promise);
        Outgoing { stream, trailers, response }
    }
}

/// A response with this body.
pub(crate) fn response(headers: Fields, bytes: Vec<u8>) -> Response {
    let Outgoing { mut stream, trailers, response } = Outgoing::new(headers);
    spawn_local(async move {
        let unsent = stream.write_all(bytes).await;
        drop(stream);
        if unsent.is_empty() {
            // The client may have gone.
            let _ = trailers.write(Ok(None)).await;
        }
    });
    response
}

/// A response with this body, which passes through here piece by piece.
pub(crate) fn forward(
    headers: Fields,
    mut body: StreamReader<u8>,
    ending: FutureReader<Result<Option<Trailers>, ErrorCode>>,
) -> Response {
    let Outgoing { mut stream, trailers, response } = Outgoing::new(headers);
    spawn_local(async move {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let (result, read) = body.read(piece).await;
            piece = stream.write_all(read).await;
            if !piece.is_empty() {
                return;
            }
            if piece.capacity() == 0 {
                piece.reserve(PIECE);
            }
            if !matches!(result, StreamResult::Complete(_)) {
                break;
            }
        }
        drop(stream);
        let _ = trailers.write(ending.await).await;
    });
    response
}

pub(crate) fn echo(request: Request) -> Response {
    let headers = request.get_headers();
    let headers = Fields::from_list(&passed_on(&headers)).expect("valid headers");
    let (body, ending) = Request::consume_body(request, accepted());
    forward(headers, body, ending)
}

/// What the answer says of the body as the request said it. HTTP/1.1 has no trailers but those that were announced.
fn passed_on(headers: &Fields) -> Vec<(String, Vec<u8>)> {
    let names = ["content-type", "trailer"];
    names.iter().flat_map(|name| headers.get(name).into_iter().map(|value| (name.to_string(), value))).collect()
}

/// The number of bytes in the request's body.
pub(crate) async fn count(request: Request) -> u64 {
    let (mut body, _ending) = Request::consume_body(request, accepted());
    let mut piece = Vec::with_capacity(PIECE);
    let mut bytes = 0;
    loop {
        let (result, read) = body.read(piece).await;
        bytes += read.len() as u64;
        piece = read;
        piece.clear();
        if !matches!(result, StreamResult::Complete(_)) {
            return bytes;
        }
    }
}

/// So many bytes, in lines of 64.
pub(crate) fn big(mut left: usize) -> Response {
    let Outgoing { mut stream, trailers, response } = Outgoing::new(Fields::new());
    spawn_local(async move {
        let line = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
        let piece = line.repeat(PIECE / line.len());
        while left > 0 {
            let now = left.min(PIECE);
            if !stream.write_all(piece[..now].to_vec()).await.is_empty() {
                return;
            }
            left -= now;
        }
        drop(stream);
        let _ = trailers.write(Ok(None)).await;
    });
    response
}

/// That a body was taken without error, which is all that we ever say.
pub(crate) fn accepted() -> FutureReader<Result<(), ErrorCode>> {
    wit_future::new(|| Ok(())).1
}
