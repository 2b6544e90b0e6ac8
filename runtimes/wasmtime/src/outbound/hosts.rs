//! To whom a request goes, and whether it may.

use std::net::IpAddr;

use http::{Uri, uri::Scheme};
use lighter_runtime_api::{Guest, HostPattern, Network};
use wasmtime_wasi_http::Error;

/// Where a request is sent: what is compared with the grant is what is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// As people write it, in one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// In lower case, without the final dot.
    Name(String),
}

/// The hosts to which a guest may send requests.
#[derive(Clone, Debug)]
pub(crate) enum Allowed {
    All,
    These(Vec<Pattern>),
}

#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    host: PatternHost,
    /// `None` for every port.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum PatternHost {
    Is(Host),
    /// Has this end, which starts with a dot, after one label or more.
    Below(String),
}

impl Destination {
    /// The one that a request's URI names.
    ///
    /// # Errors
    /// It has none, or one that could be read in two ways.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let text = authority.as_str();
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = match text.strip_prefix(authority.host()) {
            Some("") => Some(if tls { 443 } else { 80 }),
            Some(_) => authority.port_u16(),
            // Names before an `@` are nobody's to send, and good for nothing but deceiving.
            None => None,
        };
        let host = Host::parse(authority.host());
        let (host, port) = host.zip(port).ok_or(Error::HttpRequestUriInvalid)?;
        Ok(Self { host, port, tls })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(address) = text.strip_prefix('[') {
            return Some(Self::Ip(IpAddr::V6(address.strip_suffix(']')?.parse().ok()?)));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Ip(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        // The resolver takes `127.1` and `0x7f000001` for addresses. Source: inet_aton(3).
        let last = name.rsplit('.').next().unwrap_or_default();
        let number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        (plain && !number).then_some(Self::Name(name))
    }
}

impl Allowed {
    /// What the plan grants. Who may not connect at all may not do it through the host either.
    pub(crate) fn of(guest: &Guest) -> Self {
        match (&guest.grants.network, &guest.http.allowed_hosts) {
            (Network::None | Network::Listen(_), _) => Self::These(Vec::new()),
            (Network::All, None) => Self::All,
            (Network::All, Some(patterns)) => Self::These(patterns.iter().filter_map(Pattern::of).collect()),
        }
    }

    pub(crate) fn permits(&self, destination: &Destination) -> bool {
        match self {
            Self::All => true,
            Self::These(patterns) => patterns.iter().any(|pattern| pattern.matches(destination)),
        }
    }
}

impl Pattern {
    /// `None` for what no destination can match.
    fn of(pattern: &HostPattern) -> Option<Self> {
        let host = match pattern.host.strip_prefix('*') {
            Some(end) if end.starts_with('.') => PatternHost::Below(end.to_ascii_lowercase()),
            Some(_) => return None,
            None => PatternHost::Is(Host::parse(&pattern.host)?),
        };
        Some(Self { host, port: pattern.port })
    }

    fn matches(&self, destination: &Destination) -> bool {
        let host = match (&self.host, &destination.host) {
            (PatternHost::Is(host), to) => host == to,
            (PatternHost::Below(end), Host::Name(name)) => {
                name.strip_suffix(end.as_str()).is_some_and(|sub| !sub.is_empty())
            }
            (PatternHost::Below(_), Host::Ip(_)) => false,
        };
        host && self.port.is_none_or(|port| port == destination.port)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pattern(host: &str, port: impl Into<Option<u16>>) -> Allowed {
        let pattern = HostPattern { host: host.to_owned(), port: port.into() };
        Allowed::These(Pattern::of(&pattern).into_iter().collect())
    }

    #[test]
    fn a_request_goes_where_a_pattern_says() {
        let table = [
            (pattern("example.com", None), "http://example.com/", true),
            (pattern("example.com", None), "https://EXAMPLE.com:8443/", true),
            (pattern("example.com", None), "http://example.com./", true),
            (pattern("example.com", None), "http://www.example.com/", false),
            (pattern("example.com", None), "http://badexample.com/", false),
            (pattern("example.com", None), "http://example.com.evil.org/", false),
            (pattern("example.com", 443), "https://example.com/", true),
            (pattern("example.com", 443), "http://example.com/", false),
            (pattern("example.com", 443), "http://example.com:443/", true),
            (pattern("*.example.com", None), "http://a.example.com/", true),
            (pattern("*.example.com", None), "http://a.b.example.com/", true),
            (pattern("*.example.com", None), "http://example.com/", false),
            (pattern("*.example.com", None), "http://aexample.com/", false),
            (pattern("*.example.com", 80), "http://a.example.com:81/", false),
            (pattern("*", None), "http://example.com/", false),
            (pattern("127.0.0.1", 9000), "http://127.0.0.1:9000/", true),
            (pattern("127.0.0.1", 9000), "http://127.0.0.1/", false),
            (pattern("127.0.0.1", None), "http://localhost/", false),
            (pattern("localhost", None), "http://127.0.0.1/", false),
            (pattern("*.0.0.1", None), "http://127.0.0.1/", false),
            (pattern("[::1]", 80), "http://[::1]/", true),
            (pattern("[::1]", 80), "http://[0:0:0:0:0:0:0:1]/", true),
            (pattern("[::1]", 80), "http://[::2]/", false),
            (pattern("127.0.0.1", None), "http://[::ffff:127.0.0.1]/", false),
            (Allowed::These(Vec::new()), "http://example.com/", false),
            (Allowed::All, "http://example.com/", true),
        ];
        for (allowed, uri, expected) in table {
            let destination = Destination::of(&uri.parse().unwrap()).unwrap();
            assert_eq!(allowed.permits(&destination), expected, "{allowed:?} {uri}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_destination() {
        let table = [
            "/",
            "http://example.com@evil.org/",
            "http://example.com:80@evil.org/",
            "http://@evil.org/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://127.0.0.0x1/",
            "http://example.com:99999/",
            "http://example.com:/",
            "http://exa%6dple.com/",
            "http://./",
        ];
        for uri in table {
            // What the URI's own parser refuses never comes here.
            if let Ok(uri) = uri.parse() {
                assert!(Destination::of(&uri).is_err(), "{uri}");
            }
        }
    }

    #[test]
    fn ports_follow_the_scheme() {
        let of = |uri: &str| Destination::of(&uri.parse().unwrap()).map(|to| (to.port, to.tls)).unwrap();
        assert_eq!(of("http://a/"), (80, false));
        assert_eq!(of("https://a/"), (443, true));
        assert_eq!(of("https://[::1]:8443/"), (8443, true));
    }
}
