//! What a guest may do beyond running: narrowed by annotations, never widened.

use std::collections::HashMap;

use crate::{ANNOTATION_PREFIX, Error};

/// The capabilities that an engine hands to the guest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grants {
    /// TCP, UDP and name lookup in the container's network namespace.
    pub network: bool,
}

impl Grants {
    /// Reads `run.lighter.network`: `all` (default) or `none`.
    ///
    /// # Errors
    /// A value that isn't known: a typing mistake must not widen a grant.
    pub fn from_annotations(annotations: &HashMap<String, String>) -> Result<Self, Error> {
        let network = match annotations.get(&format!("{ANNOTATION_PREFIX}network")).map(String::as_str) {
            None | Some("all") => true,
            Some("none") => false,
            Some(other) => {
                return Err(Error::Refused {
                    what: format!("annotation {ANNOTATION_PREFIX}network={other:?}"),
                    why: "it takes \"all\" or \"none\"".to_owned(),
                });
            }
        };
        Ok(Self { network })
    }
}
