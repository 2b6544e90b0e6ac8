//! Bodies on their way in and out, each piece of which is progress.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use wasmtime_wasi_http::{Error, WasiBody};

use super::{
    metrics::{Counted, Metrics},
    progress::Progress,
};

/// What counts as a request's status where the client went away before there was one. Source: nginx.
const CLIENT_GONE: u16 = 499;

/// A request's body, as it comes from the client.
pub(super) struct Upload {
    pub(super) body: Incoming,
    pub(super) progress: Progress,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.progress.moved();
        Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts a request when it is over, whatever its end.
pub(super) struct Record {
    metrics: Arc<Metrics>,
    progress: Progress,
    pub(super) code: u16,
    _in_flight: Counted,
}

impl Record {
    pub(super) fn new(metrics: &Arc<Metrics>, progress: Progress) -> Self {
        let in_flight = Counted::new(&metrics.in_flight);
        Self { metrics: Arc::clone(metrics), progress, code: CLIENT_GONE, _in_flight: in_flight }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.answered(self.code, self.progress.elapsed());
    }
}

/// A response's body. The request is over when it goes.
pub(super) struct Download {
    content: Content,
    record: Record,
}

enum Content {
    /// The server's own words.
    Text(Option<Bytes>),
    /// The guest's.
    Guest {
        body: WasiBody,
        /// Ends when nothing has moved for too long. Made when the guest first makes us wait.
        stalled: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    },
}

impl Download {
    /// A guest's body.
    pub(super) fn guest(status: StatusCode, body: WasiBody, mut record: Record) -> Self {
        record.code = status.as_u16();
        Self { content: Content::Guest { body, stalled: None }, record }
    }

    /// The server's own.
    pub(super) fn text(status: StatusCode, text: &'static str, mut record: Record) -> Self {
        record.code = status.as_u16();
        Self { content: Content::Text((!text.is_empty()).then(|| Bytes::from_static(text.as_bytes()))), record }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { content, record } = &mut *self;
        let (body, stalled) = match content {
            Content::Text(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Content::Guest { body, stalled } => (body, stalled),
        };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            record.progress.moved();
            return Poll::Ready(frame);
        }
        // It reads the clock again itself when something has moved meanwhile.
        let stalled = stalled.get_or_insert_with(|| Box::pin(record.progress.clone().stalled()));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::HttpResponseTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_none(),
            Content::Guest { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Content::Guest { body, .. } => body.size_hint(),
        }
    }
}
