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
mod exchange;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod fake;

use std::{
    cell::Cell,
    fs::File,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use lighter_oci::image::{self, media};
use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::{
    Method, RequestBuilder, StatusCode, Url,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};
use sha2::{Digest as _, Sha256};

pub(crate) use self::error::Error;
use self::{auth::Auth, backoff::Backoff, endpoint::Endpoint, error::readable};
use crate::{
    output::Output,
    reference::Reference,
    store::{Partial, sha256},
};

/// From a request's last byte to the answer's first, and between two pieces of a body.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// From an upload's last byte to the answer: the registry hashes the blob, and may copy it to where it stays.
const STORES_WITHIN: Duration = Duration::from_secs(300);
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

    /// Says who we are, before several requests at once have to; and finds out early if there is no such registry.
    pub(crate) async fn greet(&self) -> Result<(), Error> {
        let operation = &format!("connect to {}", self.name);
        self.retry(async || {
            let response = self.send(operation, Method::GET, &self.endpoint.base, |get| get).await?;
            // What answers otherwise may still have an API below.
            self.expect(operation, response, &[StatusCode::OK, StatusCode::NOT_FOUND]).await.map(|_| ())
        })
        .await
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
        let operation = format!("get blob {} of {}", blob.digest(), self.place());
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
        let operation = format!("get blob {} of {}", blob.digest(), self.place());
        let url = self.url(&["blobs", blob.digest().as_ref()])?;
        let mut backoff = Backoff::default();
        // Bytes that were moved again after a restart are no progress: there would be no end to it.
        let mut furthest = partial.len();
        while partial.len() < blob.size() {
            if let Err(error) = self.download_once(&operation, &url, blob, partial, &at).await {
                if partial.len().saturating_sub(furthest) >= PROGRESS {
                    furthest = partial.len();
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
        let operation = format!("look for blob {} in {}", blob.digest(), self.place());
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
        let operation = format!("mount blob {} from {}/{from}", blob.digest(), self.name);
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
        let operation = format!("upload blob {} to {}", blob.digest(), self.place());
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

    fn url(&self, path: &[&str]) -> Result<Url, Error> {
        let path = format!("{}/{}", self.repository, path.join("/"));
        self.endpoint.base.join(&path).map_err(|error| self.nonsense(&path, format!("has no such address: {error}")))
    }

    /// The repository, for messages.
    fn place(&self) -> String {
        format!("{}/{}", self.name, self.repository)
    }

    fn named(&self, tag_or_digest: &str) -> String {
        let separator = if tag_or_digest.contains(':') { '@' } else { ':' };
        format!("{}{separator}{tag_or_digest}", self.place())
    }
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
