//! A request to elsewhere.

use wasip3::{
    http::{
        client,
        types::{ErrorCode, Fields, Request, Response, Scheme},
    },
    wit_future,
};

use crate::{body, text};

/// GETs `url` and answers with what comes.
pub(crate) async fn fetch(url: &str) -> Response {
    let incoming = match get(url).await {
        Ok(response) => response,
        Err(error) => return text(502, format!("{error}\n")),
    };
    let status = incoming.get_status_code();
    let (body, ending) = Response::consume_body(incoming, body::accepted());
    let response = body::forward(Fields::new(), body, ending);
    response.set_status_code(status).expect("a status");
    response
}

async fn get(url: &str) -> Result<Response, ErrorCode> {
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (request, _transmitted) = Request::new(Fields::new(), None, wit_future::new(|| Ok(None)).1, None);
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(invalid)?;
    client::send(request).await
}
