//! Where a registry is: HTTP or HTTPS, and whose certificates count.

use std::{
    fs,
    io::ErrorKind,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, Url};

use super::{Error, error::innermost};

/// A host that doesn't take a connection within this is down.
const CONNECT: Duration = Duration::from_secs(5);
/// Where Docker, containerd and Podman look for the CAs of registries, in a folder for each `HOST[:PORT]`.
const CERTIFICATES: &[&str] = &["/etc/docker/certs.d", "/etc/containerd/certs.d", "/etc/containers/certs.d"];

/// The API's address and the client to speak to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) base: Url,
    pub(super) http: Client,
    /// Whether somebody asked for plain HTTP, wherever it leads.
    plain_http: bool,
}

impl Endpoint {
    /// `registry` is host and port as in a reference. Plain HTTP for registries of this machine that have no CA configured,
    /// and for all with `plain_http`.
    pub(super) fn new(registry: &str, plain_http: bool) -> Result<Self, Error> {
        let folders: Vec<PathBuf> = CERTIFICATES.iter().map(|folder| Path::new(folder).join(registry)).collect();
        Self::with_certificates(registry, plain_http, &folders)
    }

    fn with_certificates(registry: &str, plain_http: bool, folders: &[PathBuf]) -> Result<Self, Error> {
        let failed = |why: String| Error::SetUp { registry: registry.to_owned(), why };
        let certificates = certificates(folders).map_err(failed)?;
        let has_own_ca = !certificates.is_empty();
        let plain = plain_http || is_loopback(registry) && !has_own_ca;
        // Docker Hub's name and its registry's differ.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| failed(error.to_string()))?;
        let builder = || {
            let builder = Client::builder().user_agent(concat!("lighter/", env!("CARGO_PKG_VERSION")));
            // Nothing that began with TLS goes on without it: redirects, token servers, uploads.
            let builder = builder.connect_timeout(CONNECT).https_only(!plain);
            // An address that a registry sends us to may itself be the key to a blob, and no other host's business.
            let builder = builder.referer(false);
            // No proxy leads to this machine.
            if is_loopback(registry) { builder.no_proxy() } else { builder }
        };
        let http = match builder().tls_certs_merge(certificates).build() {
            // A machine without any CA can still speak plain HTTP.
            Err(_) if plain => builder().tls_certs_only([]).build(),
            other => other,
        };
        let http = http.map_err(|error| failed(innermost(&error)))?;
        Ok(Self { base, http, plain_http })
    }

    /// Whether a password may go there: over TLS, or without where nobody can listen or somebody said that it is all right.
    pub(super) fn is_confidential(&self, url: &Url) -> bool {
        url.scheme() == "https" || self.base.scheme() == "http" && (self.plain_http || is_loopback_host(url))
    }

    /// Why there is no connection, and what to do about it.
    pub(super) fn unreachable(&self, registry: &str, error: &reqwest::Error) -> Error {
        let why = innermost(error);
        let tls = self.base.scheme() == "https";
        let cure = if tls && why.contains("InvalidContentType") {
            "; if it speaks plain HTTP, use --plain-http".to_owned()
        } else if tls && why.contains("UnknownIssuer") {
            format!("; if its CA is to be trusted, put the CA's certificate into {}/{registry}/ca.crt", CERTIFICATES[0])
        } else {
            String::new()
        };
        let why = if error.is_timeout() { "no answer".to_owned() } else { why };
        let for_good = !cure.is_empty() || why.contains("invalid peer certificate");
        Error::Unreachable { registry: registry.to_owned(), why: why + &cure, for_good }
    }
}

/// Whether a host is this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
fn is_loopback(registry: &str) -> bool {
    Url::parse(&format!("http://{registry}/")).is_ok_and(|url| is_loopback_host(&url))
}

fn is_loopback_host(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Every `*.crt` in the folders, in PEM.
fn certificates(folders: &[PathBuf]) -> Result<Vec<Certificate>, String> {
    let mut certificates = Vec::new();
    for folder in folders {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(format!("list {}: {error}", folder.display())),
        };
        for entry in entries {
            let path = entry.map_err(|error| format!("list {}: {error}", folder.display()))?.path();
            if path.extension().is_none_or(|extension| extension != "crt") {
                continue;
            }
            let pem = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
            let bundle = Certificate::from_pem_bundle(&pem)
                .map_err(|error| format!("{}: {}", path.display(), innermost(&error)))?;
            if bundle.is_empty() {
                return Err(format!("{}: no certificate in PEM in it", path.display()));
            }
            certificates.extend(bundle);
        }
    }
    Ok(certificates)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_speaks_http_and_others_https() {
        super::super::install_tls();
        for (registry, plain_http, base) in [
            ("localhost:5000", false, "http://localhost:5000/v2/"),
            ("127.0.0.1:5000", false, "http://127.0.0.1:5000/v2/"),
            ("127.8.9.1", false, "http://127.8.9.1/v2/"),
            ("[::1]:5000", false, "http://[::1]:5000/v2/"),
            ("docker.io", false, "https://registry-1.docker.io/v2/"),
            ("localhost.example.com", false, "https://localhost.example.com/v2/"),
            ("r.test:5000", false, "https://r.test:5000/v2/"),
            ("r.test:5000", true, "http://r.test:5000/v2/"),
        ] {
            match Endpoint::with_certificates(registry, plain_http, &[]) {
                Ok(endpoint) => assert_eq!(endpoint.base.as_str(), base),
                // The build machine need not have CAs.
                Err(error) => assert!(base.starts_with("https") && error.to_string().contains("CA"), "{error}"),
            }
        }
    }

    #[test]
    fn a_password_goes_over_tls_or_stays_on_this_machine() {
        super::super::install_tls();
        let table = [
            ("localhost:5000", false, "https://auth.test/token", true),
            ("localhost:5000", false, "http://localhost:5001/token", true),
            ("localhost:5000", false, "http://[::1]:5001/token", true),
            ("localhost:5000", false, "http://auth.test/token", false),
            ("localhost:5000", true, "http://auth.test/token", true),
            ("r.test", true, "http://auth.test/token", true),
        ];
        for (registry, plain_http, realm, expected) in table {
            let endpoint = Endpoint::with_certificates(registry, plain_http, &[]).unwrap();
            assert_eq!(
                endpoint.is_confidential(&Url::parse(realm).unwrap()),
                expected,
                "{registry} {plain_http} {realm}"
            );
        }
    }

    #[test]
    fn a_damaged_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "not looked at").unwrap();
        assert!(certificates(&[folder.path().to_owned(), folder.path().join("absent")]).unwrap().is_empty());
        fs::write(folder.path().join("ca.crt"), "no certificate").unwrap();
        let error = certificates(&[folder.path().to_owned()]).unwrap_err();
        assert!(error.contains("ca.crt"), "{error}");
    }
}
