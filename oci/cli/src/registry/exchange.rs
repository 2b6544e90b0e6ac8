//! One request and what may come of it: authentication, time limits, another try.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use lighter_oci::image;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header::AUTHORIZATION};
use tokio::time::timeout;

use super::{
    ANSWERS_WITHIN, Error, Registry, STORES_WITHIN,
    backoff::Backoff,
    body,
    error::{innermost, refusal},
};

impl Registry<'_> {
    /// Tries until it works or [`Backoff`] gives up.
    pub(super) async fn retry<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut backoff = Backoff::default();
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => self.pause(&mut backoff, error).await?,
            }
        }
    }

    /// Waits before the next try and says so, or returns the error.
    pub(super) async fn pause(&self, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
        let Some(wait) = backoff.after(&error, self.reached.get()) else { return Err(error) };
        self.output.note(&format!("{error}; try {} in {:.1} s", backoff.next_try(), wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// [`Self::exchange`], and an answer in time.
    pub(super) async fn send(
        &self,
        operation: &str,
        method: Method,
        url: &Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        match timeout(ANSWERS_WITHIN, self.exchange(operation, method, url, dress)).await {
            Ok(response) => response,
            Err(_) => Err(self.broken(operation, "no answer".to_owned())),
        }
    }

    /// One request and its answer, or two: authenticated if the registry asks for it.
    pub(super) async fn exchange(
        &self,
        operation: &str,
        method: Method,
        url: &Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        // An upload may go to another host, which our credentials are not for (CVE-2020-15157).
        let ours = url.origin() == self.endpoint.base.origin();
        let mut asked = false;
        loop {
            let authorization = if ours { self.auth.header() } else { None };
            let mut request = dress(self.endpoint.http.request(method.clone(), url.clone()));
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| self.failed(operation, &error))?;
            self.reached.set(true);
            // Nor is a challenge ours to answer that comes from where the registry sent us on to.
            let asks_us = ours && response.url().origin() == self.endpoint.base.origin();
            if response.status() != StatusCode::UNAUTHORIZED || !asks_us {
                return Ok(response);
            }
            if asked {
                return Err(match refusal(&self.name, operation, response).await {
                    Error::Denied { registry, operation, why } => {
                        Error::Denied { registry, operation, why: why + self.auth.presented() }
                    }
                    other => other,
                });
            }
            asked = true;
            self.auth.answer(&self.endpoint, operation, &response, authorization.as_ref()).await?;
        }
    }

    /// Waits for an upload as long as it moves.
    pub(super) async fn watch(
        &self,
        operation: &str,
        upload: impl Future<Output = Result<Response, Error>>,
        size: u64,
        sent: &AtomicU64,
        at: &impl Fn(u64),
    ) -> Result<Response, Error> {
        const LOOK: Duration = Duration::from_millis(100);
        let mut upload = std::pin::pin!(upload);
        let (mut last, mut still) = (0, Duration::ZERO);
        loop {
            if let Ok(response) = timeout(LOOK, &mut upload).await {
                return response;
            }
            let now = sent.load(Ordering::Relaxed);
            still = if now == last { still + LOOK } else { Duration::ZERO };
            last = now;
            at(now);
            if still >= if now == size { STORES_WITHIN } else { ANSWERS_WITHIN } {
                return Err(self.broken(operation, format!("it takes no more after {now} of {size} bytes")));
            }
        }
    }

    /// The response, if its status is one of these.
    pub(super) async fn expect(
        &self,
        operation: &str,
        response: Response,
        expected: &[StatusCode],
    ) -> Result<Response, Error> {
        if expected.contains(&response.status()) {
            Ok(response)
        } else {
            Err(refusal(&self.name, operation, response).await)
        }
    }

    /// A body that is a document: bounded.
    pub(super) async fn document(&self, operation: &str, response: Response) -> Result<Vec<u8>, Error> {
        let body = self.in_time(operation, body::bounded(response, image::MAX_DOCUMENT)).await?;
        let most = image::MAX_DOCUMENT;
        body.ok_or_else(|| {
            self.nonsense(operation, format!("sends more than the {most} bytes that a document may have"))
        })
    }

    pub(super) async fn in_time<T>(
        &self,
        operation: &str,
        piece: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, Error> {
        match timeout(ANSWERS_WITHIN, piece).await {
            Ok(piece) => piece.map_err(|error| self.failed(operation, &error)),
            Err(_) => Err(self.broken(operation, "nothing more came".to_owned())),
        }
    }

    pub(super) fn failed(&self, operation: &str, error: &reqwest::Error) -> Error {
        if error.is_connect() {
            return self.endpoint.unreachable(&self.name, error);
        }
        self.broken(operation, innermost(error))
    }

    pub(super) fn broken(&self, operation: &str, why: String) -> Error {
        Error::BrokenOff { operation: operation.to_owned(), why }
    }

    pub(super) fn nonsense(&self, operation: &str, what: String) -> Error {
        Error::Nonsense { operation: operation.to_owned(), what }
    }
}
