//! A request to elsewhere.

use wasip2::http::{
    outgoing_handler,
    types::{ErrorCode, Fields, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme},
};

use crate::{body, text};

/// GETs `url` and answers with what comes.
pub(crate) fn fetch(url: &str, answer: ResponseOutparam) {
    let incoming = match get(url) {
        Ok(response) => response,
        Err(error) => return text(answer, 502, &format!("{error}\n")),
    };
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(incoming.status()).expect("a status");
    let outgoing = response.body().expect("the body, once");
    ResponseOutparam::set(answer, Ok(response));
    body::forward(incoming.consume().expect("the body, once"), outgoing);
}

fn get(url: &str) -> Result<wasip2::http::types::IncomingResponse, ErrorCode> {
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let request = OutgoingRequest::new(Fields::new());
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(invalid)?;
    let body = request.body().expect("the body, once");
    let future = outgoing_handler::handle(request, None)?;
    OutgoingBody::finish(body, None)?;
    future.subscribe().block();
    future.get().expect("ready").expect("once")
}
