//! What a guest may do beyond running: narrowed by annotations, never widened.

use std::{collections::HashMap, net::SocketAddr};

use crate::{ANNOTATION_PREFIX, Error};

/// The capabilities that an engine hands to the guest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grants {
    /// Which sockets it may have.
    pub network: Network,
}

/// What a guest may do in its network namespace.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// TCP, UDP and name lookup.
    All,
    /// Nothing.
    None,
    /// Accept TCP connections on these addresses, and nothing else. An unspecified IP (`0.0.0.0`, `::`) stands for every
    /// address that has the port.
    Listen(Vec<SocketAddr>),
}

impl Network {
    /// Whether the guest may bind a TCP socket to `address` and listen on it.
    #[must_use]
    pub fn may_listen(&self, address: SocketAddr) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Listen(granted) => granted.iter().any(|granted| {
                granted.port() == address.port() && (granted.ip().is_unspecified() || granted.ip() == address.ip())
            }),
        }
    }
}

impl Grants {
    /// Reads `run.lighter.network`: `all` (default) or `none`.
    ///
    /// # Errors
    /// A value that isn't known: a typing mistake must not widen a grant.
    pub fn from_annotations(annotations: &HashMap<String, String>) -> Result<Self, Error> {
        let network = match annotations.get(&format!("{ANNOTATION_PREFIX}network")).map(String::as_str) {
            None | Some("all") => Network::All,
            Some("none") => Network::None,
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_granted_on_its_address_or_on_all() {
        let listen = |granted: &str| Network::Listen(vec![granted.parse().unwrap()]);
        let table = [
            (listen("127.0.0.1:80"), "127.0.0.1:80", true),
            (listen("127.0.0.1:80"), "127.0.0.1:81", false),
            (listen("127.0.0.1:80"), "127.0.0.2:80", false),
            (listen("127.0.0.1:80"), "0.0.0.0:80", false),
            (listen("127.0.0.1:80"), "0.0.0.0:0", false),
            (listen("0.0.0.0:80"), "127.0.0.1:80", true),
            (listen("0.0.0.0:80"), "[::]:80", true),
            (listen("[::1]:80"), "[::1]:80", true),
            (listen("[::1]:80"), "[::]:80", false),
            (Network::Listen(Vec::new()), "127.0.0.1:80", false),
            (Network::None, "127.0.0.1:80", false),
            (Network::All, "127.0.0.1:80", true),
        ];
        for (network, address, expected) in table {
            assert_eq!(network.may_listen(address.parse().unwrap()), expected, "{network:?} {address}");
        }
    }
}
