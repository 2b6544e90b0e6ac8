//! How a guest is served that turns out to be an HTTP handler: `run.lighter.http.*`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{Error, annotations::Annotations, quantity};

/// What `run.lighter.http.reuse=true` comes to: often enough that a start costs nothing, and an instance that leaks ends.
const REUSES: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// What the annotations say of a handler. Other guests heed [`Self::allowed_hosts`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// Where requests are accepted.
    pub address: SocketAddr,
    /// Where metrics are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Requests that one instance answers, one after the other, before it makes way for a fresh one.
    pub reuse: NonZeroU32,
    /// How long nothing may move on a request: no piece of its body, nor of its response. `None` for as long as it takes.
    pub timeout: Option<Duration>,
    /// How long connections are still accepted after SIGTERM: who sends them may learn of the end later.
    pub linger: Duration,
    /// Bound on one instance's linear memory in bytes; `None` where the guest's own is the only one.
    pub memory: Option<u64>,
    /// Requests that are worked on at once; `None` for as many as the memory takes.
    pub concurrency: Option<NonZeroU32>,
    /// Hosts to which HTTP requests may go out; `None` for all that the network reaches.
    pub allowed_hosts: Option<Vec<HostPattern>>,
}

/// One word of `run.lighter.http.allowed-hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPattern {
    /// In lower case; an IPv6 address stands in brackets. A leading `*.` stands for one label or more.
    pub host: String,
    /// `None` for every port.
    pub port: Option<u16>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            metrics: None,
            reuse: NonZeroU32::MIN,
            timeout: Some(Duration::from_secs(60)),
            linger: Duration::ZERO,
            memory: None,
            concurrency: None,
            allowed_hosts: None,
        }
    }
}

const ADDRESS: &str = "PORT, IP:PORT or [IP6]:PORT, such as 8080, 127.0.0.1:8080 or [::1]:8080";

impl Http {
    /// Reads `run.lighter.http.*`; what isn't there has its default.
    ///
    /// # Errors
    /// A value that isn't understood, or metrics where requests go.
    pub(crate) fn from_annotations(annotations: Annotations<'_>) -> Result<Self, Error> {
        let default = Self::default();
        let address = annotations.parse("http.address", ADDRESS, address)?.unwrap_or(default.address);
        let metrics = annotations.parse("http.metrics", ADDRESS, self::address)?;
        if let Some(metrics) = metrics.filter(|metrics| overlap(*metrics, address)) {
            let takes = format!("another port than that of requests, {address}");
            return Err(Annotations::wrong("http.metrics", &metrics.to_string(), takes));
        }
        let number = |text: &str| text.parse::<NonZeroU32>().ok();
        Ok(Self {
            address,
            metrics,
            reuse: annotations
                .parse("http.reuse", "false, true or the number of requests an instance answers", |text| match text {
                    "false" => Some(NonZeroU32::MIN),
                    "true" => Some(REUSES),
                    text => number(text),
                })?
                .unwrap_or(default.reuse),
            timeout: annotations
                .parse("http.timeout", "a time such as 500ms, 30s or 2m, or none", |text| match text {
                    "none" => Some(None),
                    text => quantity::duration(text).ok().map(Some),
                })?
                .unwrap_or(default.timeout),
            linger: annotations
                .parse("http.linger", "a time such as 500ms or 3s, or none", |text| match text {
                    "none" => Some(Duration::ZERO),
                    text => quantity::duration(text).ok(),
                })?
                .unwrap_or(default.linger),
            memory: annotations
                .parse("http.memory", "a size such as 64Mi, 64MiB or 67108864", |text| quantity::bytes(text).ok())?,
            concurrency: annotations.parse("http.concurrency", "a number from 1 on", number)?,
            allowed_hosts: annotations.get("http.allowed-hosts").map(host_patterns).transpose()?,
        })
    }
}

/// `PORT`, `IP:PORT`, `[IP6]:PORT`; without an IP, every one of IPv4.
fn address(text: &str) -> Option<SocketAddr> {
    match port(text) {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        None => text.parse().ok().filter(|address: &SocketAddr| address.port() != 0),
    }
}

/// Digits alone: the standard library's parser would take a sign.
fn port(text: &str) -> Option<u16> {
    let port: NonZeroU16 = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(port.get())
}

/// Whether both can't be listened on. An IPv6 socket for every address takes IPv4's as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// The words of `run.lighter.http.allowed-hosts`.
fn host_patterns(text: &str) -> Result<Vec<HostPattern>, Error> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words
        .map(|word| {
            HostPattern::parse(word).map_err(|why| {
                let takes =
                    format!("hosts such as api.example.com, *.example.com, example.com:8443 or [::1]:80: {why}");
                Annotations::wrong("http.allowed-hosts", word, takes)
            })
        })
        .collect()
}

impl HostPattern {
    fn parse(word: &str) -> Result<Self, &'static str> {
        const PORT: &str = "behind the colon there must be a port from 1 to 65535";
        if word.contains('/') {
            return Err("leave the scheme and the path out");
        }
        let (host, rest) = if word.starts_with('[') {
            let end = word.find(']').ok_or("a bracket is open")?;
            let address: Ipv6Addr = word[1..end].parse().map_err(|_| "in brackets there must be an IPv6 address")?;
            (format!("[{address}]"), &word[end + 1..])
        } else if word.parse::<Ipv6Addr>().is_ok() {
            return Err("an IPv6 address stands in brackets");
        } else {
            let (host, rest) = word.split_at(word.find(':').unwrap_or(word.len()));
            (name(host)?, rest)
        };
        let port = match rest.strip_prefix(':') {
            Some(text) => Some(port(text).ok_or(PORT)?),
            None if rest.is_empty() => None,
            None => return Err(PORT),
        };
        Ok(Self { host, port })
    }
}

/// A name in lower case, or an IPv4 address. Source of the bounds: RFC 1035 §2.3.4.
fn name(text: &str) -> Result<String, &'static str> {
    if text == "*" {
        return Err("to allow all hosts, leave the annotation out");
    }
    let bare = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(letter)
    };
    if !text.is_ascii() {
        return Err("write the name as DNS has it, with xn--");
    }
    if bare.contains('*') {
        return Err("a star stands in front only, as *.");
    }
    if bare.len() > 253 || !bare.split('.').all(is_label) {
        return Err("this is no name that DNS could have");
    }
    // What ends in a number is an address to everybody who asks for it, though `127.1` is one to some only.
    let ends_in_number = bare.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if ends_in_number && (bare != text || bare.parse::<IpAddr>().is_err()) {
        return Err("write an IPv4 address in full, without a star");
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(name: &str, value: &str) -> Result<Http, String> {
        let annotations = HashMap::from([(format!("run.lighter.http.{name}"), value.to_owned())]);
        Http::from_annotations(Annotations::new(&annotations).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_annotation_sets_one_value() {
        let default = Http::default();
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let number = |number| NonZeroU32::new(number).unwrap();
        let table = [
            ("address", "80", Http { address: socket("0.0.0.0:80"), ..default.clone() }),
            ("address", "127.0.0.1:80", Http { address: socket("127.0.0.1:80"), ..default.clone() }),
            ("address", " [::1]:80 ", Http { address: socket("[::1]:80"), ..default.clone() }),
            ("metrics", "9090", Http { metrics: Some(socket("0.0.0.0:9090")), ..default.clone() }),
            ("metrics", "127.0.0.1:9", Http { metrics: Some(socket("127.0.0.1:9")), ..default.clone() }),
            ("reuse", "false", default.clone()),
            ("reuse", "true", Http { reuse: number(1000), ..default.clone() }),
            ("reuse", "7", Http { reuse: number(7), ..default.clone() }),
            ("timeout", "500ms", Http { timeout: Some(Duration::from_millis(500)), ..default.clone() }),
            ("timeout", "2m", Http { timeout: Some(Duration::from_secs(120)), ..default.clone() }),
            ("timeout", "none", Http { timeout: None, ..default.clone() }),
            ("linger", "3s", Http { linger: Duration::from_secs(3), ..default.clone() }),
            ("linger", "none", default.clone()),
            ("memory", "64Mi", Http { memory: Some(64 << 20), ..default.clone() }),
            ("memory", "64MiB", Http { memory: Some(64 << 20), ..default.clone() }),
            ("memory", "16777216", Http { memory: Some(16 << 20), ..default.clone() }),
            ("concurrency", "100", Http { concurrency: Some(number(100)), ..default.clone() }),
            ("allowed-hosts", " ", Http { allowed_hosts: Some(Vec::new()), ..default }),
        ];
        for (name, value, expected) in table {
            assert_eq!(read(name, value), Ok(expected), "{name}={value}");
        }
        assert_eq!(Http::from_annotations(Annotations::new(&HashMap::new()).unwrap()).unwrap(), Http::default());
    }

    #[test]
    fn a_value_that_is_not_understood_is_told_with_what_is() {
        let table = [
            ("address", "", "such as 8080"),
            ("address", "0", "such as 8080"),
            ("address", "127.0.0.1:0", "such as 8080"),
            ("address", "+80", "such as 8080"),
            ("address", "65536", "such as 8080"),
            ("address", "localhost:80", "such as 8080"),
            ("metrics", "x", "such as 8080"),
            ("metrics", "8080", "another port than that of requests, 0.0.0.0:8080"),
            ("metrics", "127.0.0.1:8080", "another port"),
            ("reuse", "0", "false, true"),
            ("reuse", "yes", "false, true"),
            ("timeout", "0", "or none"),
            ("timeout", "soon", "or none"),
            ("linger", "0", "or none"),
            ("memory", "0", "64Mi"),
            ("memory", "64Xi", "64Mi"),
            ("memory", "lots", "64Mi"),
            ("concurrency", "0", "from 1 on"),
            ("concurrency", "-1", "from 1 on"),
            ("allowed-hosts", "example.com https://x.org", "\"https://x.org\""),
        ];
        for (name, value, expected) in table {
            let error = read(name, value).unwrap_err();
            assert!(
                error.contains(&format!("run.lighter.http.{name}=")) && error.contains(expected),
                "{value}: {error}"
            );
        }
    }

    #[test]
    fn allowed_hosts() {
        type Hosts<'a> = &'a [(&'a str, Option<u16>)];
        let table: &[(&str, Hosts<'_>)] = &[
            ("", &[]),
            ("api.Example.com", &[("api.example.com", None)]),
            (
                "*.example.com, example.com:8443\n127.0.0.1:9000",
                &[("*.example.com", None), ("example.com", Some(8443)), ("127.0.0.1", Some(9000))],
            ),
            ("[::1]:80,[0:0::2]", &[("[::1]", Some(80)), ("[::2]", None)]),
            ("my_service localhost:1", &[("my_service", None), ("localhost", Some(1))]),
        ];
        for (text, expected) in table {
            let hosts = read("allowed-hosts", text).unwrap().allowed_hosts.unwrap();
            let hosts: Vec<_> = hosts.iter().map(|pattern| (pattern.host.as_str(), pattern.port)).collect();
            assert_eq!(hosts, *expected, "{text}");
        }
    }

    #[test]
    fn what_could_match_more_than_was_meant_is_refused() {
        let long = "a".repeat(64);
        let table = [
            ("*", "leave the annotation out"),
            ("*.*.com", "in front only"),
            ("a*.com", "in front only"),
            ("*.", "no name"),
            (".com", "no name"),
            ("a..b", "no name"),
            ("a.b.", "no name"),
            (&long, "no name"),
            ("user@host", "no name"),
            ("bücher.de", "xn--"),
            ("::1", "in brackets"),
            ("[::1", "bracket"),
            ("[x]:80", "IPv6"),
            ("[::1]80", "port"),
            ("example.com:", "port"),
            ("example.com:0", "port"),
            ("example.com:x", "port"),
            ("example.com:80:90", "port"),
            ("127.1", "in full"),
            ("2130706433", "in full"),
            ("*.0.0.1", "in full"),
            ("http://example.com", "scheme"),
            ("example.com/path", "scheme"),
        ];
        for (word, expected) in table {
            let error = read("allowed-hosts", word).unwrap_err();
            assert!(error.contains(expected), "{word}: {error}");
        }
    }
}
