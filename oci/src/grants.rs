//! What a guest may do beyond running: narrowed by annotations, never widened.

use std::net::SocketAddr;

use crate::{Error, annotations::Annotations};

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
    pub(crate) fn from_annotations(annotations: Annotations<'_>) -> Result<Self, Error> {
        let network = annotations.parse("network", "\"all\" or \"none\"", |text| match text {
            "all" => Some(Network::All),
            "none" => Some(Network::None),
            _ => None,
        })?;
        Ok(Self { network: network.unwrap_or(Network::All) })
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
