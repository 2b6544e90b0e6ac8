//! How a registry can fail, and which failures are worth another try.

use std::time::Duration;

use reqwest::StatusCode;

/// Each message names the registry and what was asked of it.
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
    #[error("{operation}: registry {registry} broke off: {why}")]
    BrokenOff {
        /// Host and port.
        registry: String,
        /// Such as `get blob sha256:…`.
        operation: String,
        /// The innermost cause.
        why: String,
    },
    /// It wants to know who we are, or knows and says no.
    #[error("{operation}: registry {registry} denies access{why}; log in with `docker login {registry}`")]
    Denied {
        /// Host and port.
        registry: String,
        /// What was asked.
        operation: String,
        /// What it says, or empty.
        why: String,
    },
    /// The image or blob isn't there.
    #[error("{operation}: not found on registry {registry}{why}")]
    NotFound {
        /// Host and port.
        registry: String,
        /// What was asked.
        operation: String,
        /// What it says, or empty.
        why: String,
    },
    /// Any other answer than the one that was asked for.
    #[error("{operation}: registry {registry} answers {status}{why}")]
    Refused {
        /// Host and port.
        registry: String,
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
    #[error("{operation}: registry {registry} {what}")]
    Nonsense {
        /// Host and port.
        registry: String,
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
