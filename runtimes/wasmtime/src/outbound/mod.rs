//! HTTP requests that guests send: `wasi:http/outgoing-handler` of 0.2, `client` of 0.3.

mod exchange;
mod hosts;

use std::sync::Arc;

use http::{HeaderName, Request, Response};
use http_body_util::BodyExt;
use lighter_runtime_api::Guest;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, Result, WasiBody, WasiHttpHooks,
};

use crate::tls::Tls;
use hosts::{Allowed, Destination};

/// Bytes of a body that a guest may hand over in one piece, which wait in the host until the peer takes them.
const CHUNK: usize = 64 << 10;
/// Pieces that wait to be sent: with room for some, a guest has said what it has to say and is gone before the first goes.
const CHUNKS: usize = 4;

/// What all instances of a container send their requests through.
#[derive(Clone)]
pub(crate) struct Outbound(Arc<Inner>);

struct Inner {
    allowed: Allowed,
    tls: Tls,
    /// Shared, as it is asked for with each set of headers.
    forbidden: ForbiddenHeaderFilter,
}

impl Outbound {
    pub(crate) fn new(guest: &Guest, tls: Tls) -> Self {
        let forbidden = Arc::new(|name: &HeaderName| DEFAULT_FORBIDDEN_HEADERS.contains(name));
        Self(Arc::new(Inner { allowed: Allowed::of(guest), tls, forbidden }))
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.0.tls
    }
}

/// What is left to do for a connection once the response's head is there, and how that ended.
type Rest = Box<dyn Future<Output = Result<()>> + Send>;

impl WasiHttpHooks for Outbound {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&self.0.forbidden)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        // How the guest fared with the response, which nobody asks for.
        _: Rest,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Rest)>> + Send> {
        let outbound = Arc::clone(&self.0);
        Box::new(async move {
            let destination = Destination::of(request.uri())?;
            if !outbound.allowed.permits(&destination) {
                return Err(Error::HttpRequestDenied);
            }
            let options = options.unwrap_or_default();
            let (response, rest) = exchange::send(&outbound.tls, &destination, request, options).await?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(rest) as Rest))
        })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}
