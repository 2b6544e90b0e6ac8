//! The manifest's annotations: what the binary says of itself, and what the user says.

use std::collections::BTreeMap;

use oci_spec::image as spec;

use super::Timestamp;
use crate::inspect::Metadata;

/// Which annotation each of a binary's own texts becomes.
/// Source: OCI image-spec, `annotations.md`; wasm-tools' crate `wasm-metadata` names the sections after them.
const NAMES: &[(&str, &str)] = &[
    ("name", spec::ANNOTATION_TITLE),
    ("description", spec::ANNOTATION_DESCRIPTION),
    ("authors", spec::ANNOTATION_AUTHORS),
    ("licenses", spec::ANNOTATION_LICENSES),
    ("source", spec::ANNOTATION_SOURCE),
    ("homepage", spec::ANNOTATION_URL),
    ("revision", spec::ANNOTATION_REVISION),
    ("version", spec::ANNOTATION_VERSION),
];

/// The user's annotations win.
pub(super) fn annotations(
    metadata: &Metadata,
    created: Option<Timestamp>,
    users: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let embedded = NAMES
        .iter()
        .filter_map(|(text, annotation)| Some(((*annotation).to_owned(), metadata.texts.get(text)?.clone())));
    let date = created.map(|created| (spec::ANNOTATION_CREATED.to_owned(), created.rfc3339()));
    let users = users.iter().map(|(name, value)| (name.clone(), value.clone()));
    embedded.chain(date).chain(users).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_users_annotations_win_over_embedded_ones() {
        let mut metadata = Metadata::default();
        metadata.texts.extend([("homepage", "https://a".to_owned()), ("version", "1".to_owned())]);
        let users = BTreeMap::from([
            ("org.opencontainers.image.version".to_owned(), "2".to_owned()),
            ("my.own".to_owned(), "x".to_owned()),
        ]);
        let all = annotations(&metadata, Some(Timestamp::default()), &users);
        let all: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            all,
            [
                ("my.own", "x"),
                ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
                ("org.opencontainers.image.url", "https://a"),
                ("org.opencontainers.image.version", "2"),
            ]
        );
        assert!(annotations(&Metadata::default(), None, &BTreeMap::new()).is_empty());
    }
}
