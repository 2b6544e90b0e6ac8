//! How a registry can fail, and which failures are worth another try.

use std::time::Duration;

use reqwest::{Response, StatusCode, header::RETRY_AFTER};
use tokio::time::timeout;

use super::{ANSWERS_WITHIN, body::bounded};

/// Bytes of a complaint that are looked at.
const MAX_MESSAGE: u64 = 64 << 10;

/// Each message names the registry and what was asked of it: operations carry the name of the image or repository.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client can't be made: certificates that aren't any, a host that is none.
    #[error("set up the connection to {registry}: {why}")]
    SetUp {
        /// Host and port.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// No connection, or no TLS on it.
    #[error("registry {registry} can't be reached: {why}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// The innermost cause, and what to do where we know.
        why: String,
        /// Whether it will be the same next time.
        for_good: bool,
    },
    /// The connection broke, or nothing more came.
    #[error("{operation}: the registry broke off: {why}")]
    BrokenOff {
        /// Such as `get blob sha256:… of r.test/hello`.
        operation: String,
        /// The innermost cause.
        why: String,
    },
    /// It wants to know who we are, or knows and says no.
    #[error("{operation}: the registry denies access{why}; log in with `docker login {registry}`")]
    Denied {
        /// Host and port.
        registry: String,
        /// What was asked.
        operation: String,
        /// What it says, or empty.
        why: String,
    },
    /// The image or blob isn't there.
    #[error("{operation}: not found{why}")]
    NotFound {
        /// What was asked.
        operation: String,
        /// What it says, or empty.
        why: String,
    },
    /// Any other answer than the one that was asked for.
    #[error("{operation}: the registry answers {status}{why}")]
    Refused {
        /// What was asked.
        operation: String,
        /// HTTP status.
        status: StatusCode,
        /// Error codes of the distribution specification, such as `MANIFEST_INVALID`.
        codes: Vec<String>,
        /// What it says, or empty.
        why: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// An answer that makes no sense.
    #[error("{operation}: the registry {what}")]
    Nonsense {
        /// What was asked.
        operation: String,
        /// What it did.
        what: String,
    },
    /// Docker's credentials can't be had.
    #[error("credentials for {registry}: {why}")]
    Credentials {
        /// Host and port.
        registry: String,
        /// What is wrong, naming the file or the helper.
        why: String,
    },
    /// Not the registry's fault: the store's.
    #[error(transparent)]
    Store(#[from] anyhow::Error),
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { for_good, .. } => !for_good,
            Self::BrokenOff { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::SetUp { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::Nonsense { .. }
            | Self::Credentials { .. }
            | Self::Store(_) => false,
        }
    }

    /// How long the registry asked us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the registry dislikes the manifest itself, not who pushes it or when.
    pub(crate) fn is_about_the_manifest(&self) -> bool {
        match self {
            Self::Refused { status, codes, .. } => {
                let codes_say = codes.iter().any(|code| code == "MANIFEST_INVALID" || code == "UNSUPPORTED");
                codes_say || *status == StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            _ => false,
        }
    }
}

/// What an answer that isn't the expected one means.
pub(super) async fn refusal(registry: &str, operation: &str, response: Response) -> Error {
    let (registry, operation) = (registry.to_owned(), operation.to_owned());
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
    // What can't be read of a complaint is no second complaint.
    let body = match timeout(ANSWERS_WITHIN, bounded(response, MAX_MESSAGE)).await {
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
        StatusCode::NOT_FOUND => Error::NotFound { operation, why },
        _ => {
            if let Some(after) = retry_after {
                why += &format!(" and wants to be asked again in {} s", after.as_secs());
            } else if text.contains("HTTP request to an HTTPS server") {
                why += &format!("; put its CA's certificate into /etc/docker/certs.d/{registry}/ca.crt");
            }
            Error::Refused { operation, status, codes, why, retry_after }
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

/// The reason at the bottom of the chain: the layers above say "error sending request".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    readable(&deepest.to_string())
}

/// What a stranger says, short and without anything that a terminal would obey.
pub(super) fn readable(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST + 1).collect();
    if clean.chars().count() > LONGEST {
        clean.pop();
        clean.push('…');
    }
    clean.trim().to_owned()
}
