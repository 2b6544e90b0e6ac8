//! Names of images, by Docker's rules: `hello` is `docker.io/library/hello:latest`.

use std::{fmt, str::FromStr};

use oci_spec::distribution;

/// `REGISTRY/REPOSITORY:TAG`, `REGISTRY/REPOSITORY@sha256:DIGEST` or both, always whole.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Reference(distribution::Reference);

/// Why a text names no image.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is no image reference: {why}")]
pub(crate) struct ParseReferenceError {
    text: String,
    why: String,
}

impl Reference {
    /// Host and port, such as `docker.io` or `localhost:5000`.
    pub(crate) fn registry(&self) -> &str {
        self.0.registry()
    }

    /// The name in the registry, such as `library/hello`.
    pub(crate) fn repository(&self) -> &str {
        self.0.repository()
    }

    /// The tag; there is one unless there is a digest.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// `sha256:` and 64 hex digits.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.0.digest()
    }

    /// What a registry's manifest address ends in: the digest, for it says more than a tag, or else the tag.
    pub(crate) fn tag_or_digest(&self) -> &str {
        self.digest().or(self.tag()).unwrap_or("latest")
    }

    /// This name and what it means now: `REGISTRY/REPOSITORY[:TAG]@DIGEST`.
    pub(crate) fn pinned(&self, digest: &str) -> String {
        let tag = self.tag().map_or(String::new(), |tag| format!(":{tag}"));
        format!("{}{tag}@{digest}", self.name())
    }

    /// Registry and repository without tag and digest.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry(), self.repository())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| ParseReferenceError { text: text.to_owned(), why };
        match text.parse::<distribution::Reference>() {
            Ok(reference) if reference.digest().is_some_and(|digest| !is_sha256(digest)) => {
                Err(wrong("its digest must be sha256: and 64 lower-case hex digits".to_owned()))
            }
            Ok(reference) => Ok(Self(reference)),
            Err(distribution::ParseError::ReferenceInvalidFormat) => Err(wrong(guess(text).to_owned())),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// Whether `digest` is `sha256:` and 64 lower-case hex digits: then it is safe as a file's name.
pub(crate) fn is_sha256(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The parser says only that the format is wrong; these are the ways people get there.
fn guess(text: &str) -> &'static str {
    let name = text.split(['@']).next().unwrap_or(text);
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    if text.contains("://") {
        "leave out the scheme, as in registry.example.com/name:tag"
    } else if text.contains(char::is_whitespace) {
        "it contains white space"
    } else if path.split(':').next().is_some_and(|path| path.contains(|c: char| c.is_ascii_uppercase())) {
        "a repository's name is lower case"
    } else if text.starts_with(['.', '/']) {
        "it looks like a path; an image is named like registry.example.com/name:tag"
    } else {
        "expected [REGISTRY/]NAME[:TAG][@sha256:DIGEST]"
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_by_dockers_rules() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, whole, registry, end) in [
            ("hello", "docker.io/library/hello:latest", "docker.io", "latest"),
            ("me/hello:1", "docker.io/me/hello:1", "docker.io", "1"),
            ("localhost/hello", "localhost/hello:latest", "localhost", "latest"),
            ("127.0.0.1:5000/a/b:x", "127.0.0.1:5000/a/b:x", "127.0.0.1:5000", "x"),
            (&format!("hello@{digest}"), &format!("docker.io/library/hello@{digest}"), "docker.io", &digest),
            (&format!("hello:1@{digest}"), &format!("docker.io/library/hello:1@{digest}"), "docker.io", &digest),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), whole);
            assert_eq!(reference.registry(), registry);
            assert_eq!(reference.tag_or_digest(), end);
            assert_eq!(reference.pinned(&digest).parse::<Reference>().unwrap().digest(), Some(&digest[..]));
        }
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        for (text, says) in [
            ("", "at least one component"),
            ("Hello", "lower case"),
            ("ghcr.io/Me/hello:1", "lower case"),
            ("https://ghcr.io/me/hello", "scheme"),
            ("hello world", "white space"),
            ("./hello.wasm", "path"),
            ("hello:", "expected"),
            ("hello@sha256:12", "expected"),
            ("hello@sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "lower-case hex"),
            (&format!("hello@sha512:{}", "0".repeat(128)), "sha256"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
