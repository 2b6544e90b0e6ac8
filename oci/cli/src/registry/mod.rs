//! A client of the OCI distribution API: manifests, blobs, uploads, mounts.
//!
//! Every request authenticates itself when asked to, is bounded in time and memory, and is tried again where that may
//! help. Must not know: what is in an image, where blobs are kept.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod auth;
mod backoff;
mod body;
mod credentials;
mod endpoint;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;

use std::{
    cell::Cell,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lighter_oci::image::{self, media};
use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER},
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

pub(crate) use self::error::Error;
use self::{
    auth::Auth,
    backoff::Backoff,
    endpoint::Endpoint,
    error::{innermost, readable},
};
use crate::{
    output::Output,
    reference::Reference,
    store::{Partial, sha256},
};

/// From a request's last byte to the answer's first, and between two pieces of a body.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// From an upload's last byte to the answer: the registry hashes the blob, and may copy it to where it stays.
const STORES_WITHIN: Duration = Duration::from_secs(300);
/// Bytes of an error message that are looked at.
const MAX_MESSAGE: u64 = 64 << 10;
/// A try that moved so many bytes was no failure to count.
const PROGRESS: u64 = 1 << 20;

/// One repository of a registry.
#[derive(Debug)]
pub(crate) struct Registry<'a> {
    name: String,
    repository: String,
    endpoint: Endpoint,
    auth: Auth,
    output: &'a Output,
    /// Whether it ever answered.
    reached: Cell<bool>,
}

/// What is to be done in the repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access<'a> {
    Pull,
    /// And mount blobs from these other repositories.
    Push(&'a [String]),
}

/// Lets `rustls` use ring; before the first client.
pub(crate) fn install_tls() {
    // An error says that there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl<'a> Registry<'a> {
    /// The repository that the reference names; connects when it must. `plain_http`: HTTP, wherever the registry is.
    pub(crate) fn new(
        reference: &Reference,
        plain_http: bool,
        access: Access<'_>,
        output: &'a Output,
    ) -> Result<Self, Error> {
        let name = reference.registry();
        let repository = reference.repository();
        let scopes = match access {
            Access::Pull => vec![format!("repository:{repository}:pull")],
            Access::Push(sources) => std::iter::once(format!("repository:{repository}:pull,push"))
                .chain(sources.iter().map(|source| format!("repository:{source}:pull")))
                .collect(),
        };
        Ok(Self {
            name: name.to_owned(),
            repository: repository.to_owned(),
            endpoint: Endpoint::new(name, plain_http)?,
            auth: Auth::new(name, scopes),
            output,
            reached: Cell::new(false),
        })
    }

    /// The manifest or index of a tag or digest: its descriptor and bytes, compared with each other.
    pub(crate) async fn manifest(&self, tag_or_digest: &str) -> Result<(Descriptor, Vec<u8>), Error> {
        let operation = format!("get manifest {}", self.named(tag_or_digest));
        let url = self.url(&["manifests", tag_or_digest])?;
        self.retry(async || {
            let accept = media::DOCUMENTS.join(", ");
            let response = self.send(&operation, Method::GET, &url, |get| get.header(ACCEPT, &accept)).await?;
            let response = self.expect(&operation, response, &[StatusCode::OK]).await?;
            let header = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let header = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_owned();
            let bytes = self.document(&operation, response).await?;
            let media_type = media_type(&header, &bytes);
            let digest: Digest = sha256(Sha256::new_with_prefix(&bytes))
                .parse()
                .map_err(|_| self.nonsense(&operation, "sent what has no digest".to_owned()))?;
            if tag_or_digest.starts_with("sha256:") && tag_or_digest != digest.as_ref() {
                return Err(self.nonsense(&operation, format!("sent something else, {digest}")));
            }
            Ok((Descriptor::new(MediaType::from(media_type.as_str()), bytes.len() as u64, digest), bytes))
        })
        .await
    }

    /// A small blob, such as a config; verified.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        let operation = format!("get blob {} of {}", blob.digest(), self.repository);
        let url = self.url(&["blobs", blob.digest().as_ref()])?;
        self.retry(async || {
            let response = self.send(&operation, Method::GET, &url, |get| get).await?;
            let response = self.expect(&operation, response, &[StatusCode::OK]).await?;
            let bytes = self.document(&operation, response).await?;
            image::verify(blob, &bytes).map_err(|error| self.nonsense(&operation, format!("sent damage: {error}")))?;
            Ok(bytes)
        })
        .await
    }

    /// Gets the rest of a blob. `at` is told how many bytes are there.
    ///
    /// The bytes are not verified: that is [`Partial::finish`]'s.
    pub(crate) async fn download(
        &self,
        blob: &Descriptor,
        partial: &mut Partial,
        at: impl Fn(u64),
    ) -> Result<(), Error> {
        let operation = format!("get blob {} of {}", blob.digest(), self.repository);
        let url = self.url(&["blobs", blob.digest().as_ref()])?;
        let mut backoff = Backoff::default();
        while partial.len() < blob.size() {
            let before = partial.len();
            if let Err(error) = self.download_once(&operation, &url, blob, partial, &at).await {
                if partial.len().saturating_sub(before) >= PROGRESS {
                    backoff.forgive();
                }
                self.pause(&mut backoff, error).await?;
            }
        }
        at(partial.len());
        Ok(())
    }

    async fn download_once(
        &self,
        operation: &str,
        url: &Url,
        blob: &Descriptor,
        partial: &mut Partial,
        at: &impl Fn(u64),
    ) -> Result<(), Error> {
        let start = partial.len();
        let response = self
            .send(operation, Method::GET, url, |get| {
                if start > 0 { get.header(RANGE, format!("bytes={start}-")) } else { get }
            })
            .await?;
        if start > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // It knows another blob by this name, or no ranges at all.
            partial.restart()?;
            return Ok(());
        }
        let mut response = self.expect(operation, response, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {start}-")) {
                if start > 0 {
                    partial.restart()?;
                    return Ok(());
                }
                return Err(self.nonsense(operation, format!("sent another range, {:?}", readable(range))));
            }
        } else if start > 0 {
            partial.restart()?;
        }
        at(partial.len());
        while let Some(chunk) = self.in_time(operation, response.chunk()).await? {
            // The page cache takes it: not worth a thread.
            partial.write(&chunk)?;
            at(partial.len());
        }
        if partial.len() < blob.size() {
            let why = format!("it ended after {} of {} bytes", partial.len(), blob.size());
            return Err(self.broken(operation, why));
        }
        Ok(())
    }

    /// Whether the repository has the blob.
    pub(crate) async fn has_blob(&self, blob: &Descriptor) -> Result<bool, Error> {
        let operation = format!("look for blob {} in {}", blob.digest(), self.repository);
        let url = self.url(&["blobs", blob.digest().as_ref()])?;
        self.retry(async || {
            let response = self.send(&operation, Method::HEAD, &url, |head| head).await?;
            let there = self.expect(&operation, response, &[StatusCode::OK, StatusCode::NOT_FOUND]).await?;
            Ok(there.status() == StatusCode::OK)
        })
        .await
    }

    /// Takes the blob over from another repository of the registry: whether it did. If not, it must be uploaded.
    pub(crate) async fn mount(&self, blob: &Descriptor, from: &str) -> Result<bool, Error> {
        let operation = format!("mount blob {} from {from}", blob.digest());
        let mut url = self.url(&["blobs", "uploads", ""])?;
        url.query_pairs_mut().append_pair("mount", blob.digest().as_ref()).append_pair("from", from);
        self.retry(async || {
            let response = self.send(&operation, Method::POST, &url, empty).await;
            match response {
                // 202 is an upload that nobody will continue, and the registry forgets.
                Ok(response) if response.status().is_server_error() => {
                    self.expect(&operation, response, &[StatusCode::CREATED]).await.map(|_| false)
                }
                Ok(response) => Ok(response.status() == StatusCode::CREATED),
                // It need not be ours to read.
                Err(Error::Denied { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Uploads a blob. `at` is told how many bytes went.
    pub(crate) async fn upload(&self, blob: &Descriptor, file: File, at: impl Fn(u64)) -> Result<(), Error> {
        let operation = format!("upload blob {} to {}", blob.digest(), self.repository);
        let uploads = self.url(&["blobs", "uploads", ""])?;
        let file = Arc::new(file);
        self.retry(async || {
            let begun = self.send(&operation, Method::POST, &uploads, empty).await?;
            let begun = self.expect(&operation, begun, &[StatusCode::ACCEPTED]).await?;
            let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.and_then(|location| begun.url().join(location).ok());
            let mut location = location.ok_or_else(|| self.nonsense(&operation, "says not where to".to_owned()))?;
            location.query_pairs_mut().append_pair("digest", blob.digest().as_ref());
            let sent = Arc::new(AtomicU64::new(0));
            let put = self.exchange(&operation, Method::PUT, &location, |put| {
                put.header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, blob.size())
                    .body(body::file(&file, blob.size(), &sent))
            });
            let stored = self.watch(&operation, put, blob.size(), &sent, &at).await?;
            self.expect(&operation, stored, &[StatusCode::CREATED]).await?;
            at(blob.size());
            Ok(())
        })
        .await
    }

    /// Stores a manifest or index under a tag or its digest.
    pub(crate) async fn put_manifest(
        &self,
        tag_or_digest: &str,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let operation = format!("put manifest {}", self.named(tag_or_digest));
        let url = self.url(&["manifests", tag_or_digest])?;
        let media_type = media_type.to_string();
        self.retry(async || {
            let response = self
                .send(&operation, Method::PUT, &url, |put| put.header(CONTENT_TYPE, &media_type).body(bytes.to_vec()))
                .await?;
            // The specification says 201; 200 and 202 are seen.
            let stored = &[StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
            self.expect(&operation, response, stored).await.map(|_| ())
        })
        .await
    }

    /// Tries until it works or [`Backoff`] gives up.
    async fn retry<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut backoff = Backoff::default();
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => self.pause(&mut backoff, error).await?,
            }
        }
    }

    /// Waits before the next try and says so, or returns the error.
    async fn pause(&self, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
        let Some(wait) = backoff.after(&error, self.reached.get()) else { return Err(error) };
        self.output.note(&format!("{error}; try {} in {:.1} s", backoff.next_try(), wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// [`Self::exchange`], and an answer in time.
    async fn send(
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
    async fn exchange(
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
            if response.status() != StatusCode::UNAUTHORIZED || !ours || asked {
                return Ok(response);
            }
            asked = true;
            self.auth.answer(&self.endpoint.http, operation, &response, authorization.as_ref()).await?;
        }
    }

    /// Waits for an upload as long as it moves.
    async fn watch(
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
    async fn expect(&self, operation: &str, response: Response, expected: &[StatusCode]) -> Result<Response, Error> {
        if expected.contains(&response.status()) {
            Ok(response)
        } else {
            Err(refusal(&self.name, operation, response).await)
        }
    }

    /// A body that is a document: bounded.
    async fn document(&self, operation: &str, response: Response) -> Result<Vec<u8>, Error> {
        let body = self.in_time(operation, body::bounded(response, image::MAX_DOCUMENT)).await?;
        let most = image::MAX_DOCUMENT;
        body.ok_or_else(|| {
            self.nonsense(operation, format!("sends more than the {most} bytes that a document may have"))
        })
    }

    async fn in_time<T>(
        &self,
        operation: &str,
        piece: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, Error> {
        match timeout(ANSWERS_WITHIN, piece).await {
            Ok(piece) => piece.map_err(|error| self.failed(operation, &error)),
            Err(_) => Err(self.broken(operation, "nothing more came".to_owned())),
        }
    }

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        let path = format!("{}/{}", self.repository, path.join("/"));
        self.endpoint.base.join(&path).map_err(|error| self.nonsense(&path, format!("has no such address: {error}")))
    }

    fn named(&self, tag_or_digest: &str) -> String {
        let separator = if tag_or_digest.contains(':') { '@' } else { ':' };
        format!("{}{separator}{tag_or_digest}", self.repository)
    }

    fn failed(&self, operation: &str, error: &reqwest::Error) -> Error {
        if error.is_connect() {
            return self.endpoint.unreachable(&self.name, error);
        }
        self.broken(operation, innermost(error))
    }

    fn broken(&self, operation: &str, why: String) -> Error {
        Error::BrokenOff { registry: self.name.clone(), operation: operation.to_owned(), why }
    }

    fn nonsense(&self, operation: &str, what: String) -> Error {
        Error::Nonsense { registry: self.name.clone(), operation: operation.to_owned(), what }
    }
}

/// What an answer that isn't the expected one means.
async fn refusal(registry: &str, operation: &str, response: Response) -> Error {
    let (registry, operation) = (registry.to_owned(), operation.to_owned());
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    // What can't be read of a complaint is no second complaint.
    let body = match timeout(ANSWERS_WITHIN, body::bounded(response, MAX_MESSAGE)).await {
        Ok(Ok(Some(body))) => body,
        _ => Vec::new(),
    };
    let complaint: Complaint = serde_json::from_slice(&body).unwrap_or_default();
    let codes: Vec<String> = complaint.errors.iter().map(|error| error.code.clone()).collect();
    let said = complaint.errors.iter().map(|error| format!("{}: {}", error.code, error.message)).collect::<Vec<_>>();
    let text = if said.is_empty() { String::from_utf8_lossy(&body).into_owned() } else { said.join(", ") };
    let text = readable(&text);
    let mut why = if text.is_empty() { String::new() } else { format!(" ({text})") };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { registry, operation, why },
        StatusCode::NOT_FOUND => Error::NotFound { registry, operation, why },
        _ => {
            if let Some(after) = retry_after {
                why += &format!(" and wants to be asked again in {} s", after.as_secs());
            } else if text.contains("HTTP request to an HTTPS server") {
                why += &format!("; put its CA's certificate into /etc/docker/certs.d/{registry}/ca.crt");
            }
            Error::Refused { registry, operation, status, codes, why, retry_after }
        }
    }
}

/// Source: distribution-spec, "Error Codes".
#[derive(Default, serde::Deserialize)]
struct Complaint {
    errors: Vec<ComplaintEntry>,
}

#[derive(serde::Deserialize)]
struct ComplaintEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A request with a body of no bytes; some registries insist on its length.
fn empty(post: RequestBuilder) -> RequestBuilder {
    post.header(CONTENT_LENGTH, 0)
}

/// The header's, unless it says nothing about the document: then the document's own.
fn media_type(header: &str, bytes: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        media_type: Option<String>,
    }
    if media::DOCUMENTS.contains(&header) {
        return header.to_owned();
    }
    let own = serde_json::from_slice::<Own>(bytes).ok().and_then(|own| own.media_type);
    own.unwrap_or_else(|| header.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
