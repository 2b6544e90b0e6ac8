//! A handler of `wasi:http/handler@0.3`, one behaviour a path, as those of `serve`:
//!
//! | path | what comes |
//! |---|---|
//! | `/` | a line of text |
//! | `/echo` | the request's body as it comes, then its trailers |
//! | `/sink` | the number of bytes in the request's body |
//! | `/big?mb=N` | N MiB |
//! | `/status/N` | status N |
//! | `/counter` | how many requests this instance has answered, this one included |
//! | `/sleep?ms=N` | sleeps, while the instance may answer others |
//! | `/fetch?url=U` | what a GET of the URL gives; status 502 and the error where nothing comes |
//! | `/trap` | traps |

mod body;
mod fetch;
#[path = "../../serve/src/query.rs"]
mod query;

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::{
    clocks::monotonic_clock,
    http::types::{ErrorCode, Fields, Request, Response},
};

use query::Query;

const MIB: usize = 1 << 20;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

struct Serve;

wasip3::http::service::export!(Serve);

impl wasip3::exports::http::handler::Guest for Serve {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = Query(query);
        Ok(match path {
            "/" => text(200, "hello from wasi:http\n".into()),
            "/echo" => body::echo(request),
            "/sink" => text(200, format!("{}\n", body::count(request).await)),
            "/big" => body::big(query.number("mb") * MIB),
            "/counter" => text(200, format!("{count}\n")),
            "/sleep" => {
                monotonic_clock::wait_for(query.number("ms") as u64 * 1_000_000).await;
                text(200, "slept\n".into())
            }
            "/fetch" => fetch::fetch(&query.text("url")).await,
            "/trap" => trap(),
            _ => match path.strip_prefix("/status/").and_then(|status| status.parse().ok()) {
                Some(status) => text(status, format!("status {status}\n")),
                None => text(404, "no such path\n".into()),
            },
        })
    }
}

/// Answers with a text of known length.
fn text(status: u16, text: String) -> Response {
    let length = text.len().to_string().into_bytes();
    let fields = [("content-type".to_owned(), b"text/plain".to_vec()), ("content-length".to_owned(), length)];
    let response = body::response(Fields::from_list(&fields).expect("valid headers"), text.into_bytes());
    response.set_status_code(status).expect("a status");
    response
}

#[inline(never)]
fn trap() -> ! {
    std::arch::wasm32::unreachable()
}
