//! The registries of a bed: Debian's docker-registry, in the flavours that users meet.

use anyhow::{Result, ensure};

use crate::Bed;

/// A registry in a bed, with a storage of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registry {
    /// Plain HTTP, open to all.
    Plain,
    /// Plain HTTP, for [`Registry::USER`] only.
    Login,
    /// HTTPS, with a certificate of the testbed's own authority, open to all.
    Tls,
}

/// Made by crypt(3) from [`Registry::PASSWORD`]: docker-registry takes bcrypt only.
const HTPASSWD: &str = "boatman:$2y$05$lighterlighterlighterepQ5cF2UeyvtcTjqn/eUrbPPMtII9lEy\n";

/// The authority's certificate; private keys lie beside it.
const CA: &str = "/etc/docker/registry/tls/ca.crt";

impl Registry {
    /// Every flavour.
    pub const ALL: [Registry; 3] = [Registry::Plain, Registry::Login, Registry::Tls];

    /// The user of [`Registry::Login`].
    pub const USER: &str = "boatman";

    /// The user's password.
    pub const PASSWORD: &str = "ballast";

    /// A name of [`Registry::Tls`] that its certificate is for, but for which no client is told the authority.
    pub const UNKNOWN_TLS: &str = "unknown.test:5443";

    /// The names of registries that resolve to the bed itself.
    pub(crate) const NAMES: &[&str] = &["registry.test", "unknown.test"];

    /// Host and port, as images are named after it.
    pub(crate) fn address(self) -> &'static str {
        match self {
            Registry::Plain => "127.0.0.1:5000",
            Registry::Login => "127.0.0.1:5001",
            Registry::Tls => "registry.test:5443",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Registry::Plain => 5000,
            Registry::Login => 5001,
            Registry::Tls => 5443,
        }
    }

    /// The daemon's name, also of its log.
    pub(crate) fn daemon(self) -> &'static str {
        match self {
            Registry::Plain => "docker-registry",
            Registry::Login => "docker-registry-login",
            Registry::Tls => "docker-registry-tls",
        }
    }

    pub(crate) fn configuration_path(self) -> String {
        format!("/etc/docker/registry/{}.yml", self.daemon())
    }

    /// Writes what it needs, and the authority's certificate where clients look for that of a registry.
    pub(crate) fn configure(self, bed: &Bed) -> Result<()> {
        let (daemon, port) = (self.daemon(), self.port());
        let (mut auth, mut tls) = (String::new(), String::new());
        match self {
            Registry::Plain => {}
            Registry::Login => {
                let path = "/etc/docker/registry/htpasswd";
                bed.write(path, HTPASSWD)?;
                auth = format!("auth: {{htpasswd: {{realm: testbed, path: {path}}}}}\n");
            }
            Registry::Tls => {
                let made = bed.sh(&certificates()).try_run()?;
                ensure!(made.status == 0, "make certificates: {made}");
                tls = ", tls: {certificate: /etc/docker/registry/tls/tls.crt, key: /etc/docker/registry/tls/tls.key}"
                    .into();
            }
        }
        let text = format!(
            "version: 0.1\n\
             storage: {{filesystem: {{rootdirectory: /tmp/{daemon}}}}}\n\
             http: {{addr: '127.0.0.1:{port}'{tls}}}\n\
             {auth}"
        );
        bed.write(&self.configuration_path(), &text)
    }
}

/// A script that makes an authority and a certificate by it, and lets Docker's, containerd's and our clients know the
/// authority for `registry.test` and for the loopback address; not for `unknown.test`.
fn certificates() -> String {
    let request = "openssl req -quiet -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc";
    let port = Registry::Tls.port();
    format!(
        r#"mkdir -p /etc/docker/registry/tls
        cd /etc/docker/registry/tls
        {request} -keyout ca.key -out ca.crt -subj "/CN=authority of the testbed" -addext keyUsage=critical,keyCertSign
        {request} -CA ca.crt -CAkey ca.key -keyout tls.key -out tls.crt -subj /CN=registry.test \
          -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth \
          -addext subjectAltName=DNS:registry.test,DNS:unknown.test,DNS:localhost,IP:127.0.0.1
        for host in registry.test:{port} 127.0.0.1:{port}; do
          mkdir -p /etc/docker/certs.d/$host
          cp {CA} /etc/docker/certs.d/$host/ca.crt
        done"#
    )
}
