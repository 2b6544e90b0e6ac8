//! A handler that uses `wasi:config` and `wasi:keyvalue`:
//!
//! | path | what comes |
//! |---|---|
//! | `/config?key=K` | the value that the configuration has for K; status 404 where it has none |
//! | `/kv?key=K&add=N` | the number at K after N was added to it |
//! | `/kv?key=K&set=V` | `set`; K holds V from now on |
//! | `/kv?key=K` | what K holds; status 404 where it holds nothing |

#[path = "../../serve/src/query.rs"]
mod query;

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use query::Query;

wit_bindgen::generate!({ world: "guests:store/imports", path: "wit", generate_all });

use self::wasi::{
    config::store as config,
    keyvalue::{atomics, store as keyvalue},
};

struct Store;

wasip2::http::proxy::export!(Store);

impl wasip2::exports::http::incoming_handler::Guest for Store {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = Query(query);
        let found = match path {
            "/config" => config::get(&query.text("key")).map_err(|error| format!("{error:?}")),
            "/kv" => key_value(&query).map_err(|error| format!("{error:?}")),
            _ => Ok(None),
        };
        match found {
            Ok(Some(value)) => text(answer, 200, &value),
            Ok(None) => text(answer, 404, "nothing here"),
            Err(error) => text(answer, 500, &error),
        }
    }
}

fn key_value(query: &Query) -> Result<Option<String>, keyvalue::Error> {
    let (key, add, set) = (query.text("key"), query.text("add"), query.text("set"));
    let bucket = keyvalue::open("")?;
    if !add.is_empty() {
        return Ok(Some(atomics::increment(&bucket, &key, add.parse().unwrap_or(1))?.to_string()));
    }
    if !set.is_empty() {
        bucket.set(&key, set.as_bytes())?;
        return Ok(Some("set".into()));
    }
    Ok(bucket.get(&key)?.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

fn text(answer: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("the body, once");
    ResponseOutparam::set(answer, Ok(response));
    let stream = body.write().expect("the stream, once");
    // The client may have gone.
    let _ = stream.blocking_write_and_flush(text.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
