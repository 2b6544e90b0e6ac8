//! A handler of `wasi:http/incoming-handler@0.2`, one behaviour a path:
//!
//! | path | what comes |
//! |---|---|
//! | `/` | a line of text |
//! | `/echo` | the request's body as it comes, then its trailers |
//! | `/sink` | the number of bytes in the request's body |
//! | `/big?mb=N` | N MiB |
//! | `/status/N` | status N |
//! | `/headers` | the request's headers, one a line |
//! | `/counter` | how many requests this instance has answered, this one included |
//! | `/sleep?ms=N`, `/spin` | sleeps; computes for ever |
//! | `/alloc?mb=N` | allocates N MiB and writes to each page; status 507 where it can't |
//! | `/log` | a line to each of stdout and stderr |
//! | `/env`, `/read?path=P` | the environment, one variable a line; a file |
//! | `/fetch?url=U` | what a GET of the URL gives; status 502 and the error where nothing comes |
//! | `/trap`, `/panic`, `/exit?code=N` | traps, panics, exits without an answer |

mod body;
mod fetch;
mod query;

use std::{
    env,
    fmt::Write,
    fs,
    hint::black_box,
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use query::Query;

const MIB: usize = 1 << 20;

static REQUESTS: AtomicU32 = AtomicU32::new(0);

struct Serve;

wasip2::http::proxy::export!(Serve);

impl wasip2::exports::http::incoming_handler::Guest for Serve {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = Query(query);
        match path {
            "/" => text(answer, 200, "hello from wasi:http\n"),
            "/echo" => body::echo(request, answer),
            "/sink" => text(answer, 200, &format!("{}\n", body::count(request))),
            "/big" => body::big(query.number("mb") * MIB, answer),
            "/headers" => text(answer, 200, &headers(&request)),
            "/counter" => text(answer, 200, &format!("{count}\n")),
            "/sleep" => {
                thread::sleep(Duration::from_millis(query.number("ms") as u64));
                text(answer, 200, "slept\n");
            }
            "/spin" => spin(),
            "/alloc" => allocate(query.number("mb"), answer),
            "/log" => {
                println!("logged to stdout");
                eprintln!("logged to stderr");
                text(answer, 200, "logged\n");
            }
            "/env" => {
                text(answer, 200, &env::vars().map(|(name, value)| format!("{name}={value}\n")).collect::<String>())
            }
            "/read" => match fs::read_to_string(query.text("path")) {
                Ok(content) => text(answer, 200, &content),
                Err(error) => text(answer, 404, &format!("{error}\n")),
            },
            "/fetch" => fetch::fetch(&query.text("url"), answer),
            "/trap" => trap(),
            "/panic" => panic!("the handler panics on purpose"),
            "/exit" => process::exit(query.number("code") as i32),
            _ => match path.strip_prefix("/status/").and_then(|status| status.parse().ok()) {
                Some(status) => text(answer, status, &format!("status {status}\n")),
                None => text(answer, 404, "no such path\n"),
            },
        }
    }
}

/// Answers with a text of known length.
fn text(answer: ResponseOutparam, status: u16, text: &str) {
    let length = text.len().to_string().into_bytes();
    let fields = [("content-type".to_owned(), b"text/plain".to_vec()), ("content-length".to_owned(), length)];
    let response = OutgoingResponse::new(Fields::from_list(&fields).expect("valid headers"));
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("the body, once");
    ResponseOutparam::set(answer, Ok(response));
    body::write_all(&body, text.as_bytes());
    // Nobody may be there any more to take it.
    let _ = OutgoingBody::finish(body, None);
}

fn headers(request: &IncomingRequest) -> String {
    let mut lines = String::new();
    for (name, value) in request.headers().entries() {
        writeln!(lines, "{name}: {}", String::from_utf8_lossy(&value)).expect("write to memory");
    }
    lines
}

fn allocate(mib: usize, answer: ResponseOutparam) {
    let mut memory = Vec::<u8>::new();
    if memory.try_reserve_exact(mib * MIB).is_err() {
        return text(answer, 507, &format!("no {mib} MiB\n"));
    }
    // Every 4 KiB: the size of the host's pages.
    for page in memory.spare_capacity_mut().iter_mut().step_by(4096) {
        page.write(1);
    }
    black_box(&memory);
    text(answer, 200, &format!("{mib} MiB\n"));
}

fn spin() -> ! {
    let mut count: u64 = 0;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

#[inline(never)]
fn trap() -> ! {
    std::arch::wasm32::unreachable()
}
