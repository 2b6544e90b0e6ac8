//! TLS for guests that leave it to the host: whom it trusts, `wasi:tls`, and the connections of outgoing HTTP requests.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use lighter_runtime_api::Guest;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client::TlsStream as Connection};
use wasmtime_wasi_tls::{Error, TlsProvider, TlsStream, TlsTransport, WasiTlsCtx, WasiTlsCtxBuilder};

/// Where distributions keep the CAs that they trust, in one file: Debian and Alpine, Fedora, openSUSE, and what is left.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Names another file, as OpenSSL and most that came after it read it.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";
/// Bytes of a bundle that are read; distributions' have some 200 kB.
const BUNDLE_BYTES: u64 = 8 << 20;
/// In the order of preference.
const HTTP_PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The node's CAs, found before the fork: they are not in the sandbox.
#[derive(Debug, Default)]
pub(crate) struct NodeRoots(Option<File>);

/// TLS for all instances of a container. What it takes is made when the first connection is.
#[derive(Clone)]
pub(crate) struct Tls(Arc<Inner>);

struct Inner {
    /// The image's CAs, or the node's; `None` for those that are built in.
    bundle: Mutex<Option<File>>,
    configs: OnceLock<Result<Configs, String>>,
}

struct Configs {
    plain: Arc<ClientConfig>,
    http: Arc<ClientConfig>,
}

/// What is spoken inside a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// HTTP, whose version is agreed on.
    Http,
    /// Whatever the guest says.
    Any,
}

impl NodeRoots {
    /// Opens the node's bundle, if it has one.
    pub(crate) fn find() -> Self {
        Self(BUNDLES.iter().find_map(|path| open(Path::new(path))))
    }
}

impl Tls {
    /// Prefers the image's CAs to the node's. Called in the sealed init.
    pub(crate) fn new(node: NodeRoots, guest: &Guest) -> Self {
        let named = guest.env.iter().find(|(name, _)| name == BUNDLE_VARIABLE).map(|(_, path)| path.as_str());
        let image = named.into_iter().chain(BUNDLES.iter().copied()).find_map(|path| open(Path::new(path)));
        Self(Arc::new(Inner { bundle: Mutex::new(image.or(node.0)), configs: OnceLock::new() }))
    }

    /// `wasi:tls` for one instance.
    pub(crate) fn context(&self) -> WasiTlsCtx {
        WasiTlsCtxBuilder::new().provider(Box::new(self.clone())).build()
    }

    /// Connects, and compares the certificate with `server`.
    ///
    /// # Errors
    /// The CAs can't be read; the peer doesn't speak TLS or isn't `server`.
    pub(crate) async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        server: ServerName<'static>,
        transport: T,
        inside: Inside,
    ) -> io::Result<Connection<T>> {
        let configs = self.0.configs.get_or_init(|| self.0.configs()).as_ref();
        let configs = configs.map_err(|why| io::Error::other(why.clone()))?;
        let config = match inside {
            Inside::Http => &configs.http,
            Inside::Any => &configs.plain,
        };
        TlsConnector::from(Arc::clone(config)).connect(server, transport).await
    }
}

impl Inner {
    fn configs(&self) -> Result<Configs, String> {
        let bundle = self.bundle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let roots = match bundle {
            Some(file) => read(file).inspect_err(|why| eprintln!("lighter: read CA certificates: {why}"))?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() },
        };
        let plain = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = plain.clone();
        http.alpn_protocols = HTTP_PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(Configs { plain: Arc::new(plain), http: Arc::new(http) })
    }
}

/// A bundle, if there is one. The image may have anything under its name: what is no file is none.
fn open(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

fn read(file: File) -> Result<RootCertStore, String> {
    let mut pem = Vec::new();
    file.take(BUNDLE_BYTES).read_to_end(&mut pem).map_err(|error| error.to_string())?;
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    let mut roots = RootCertStore::empty();
    // Bundles have certificates that are too old to be understood; they are but not trusted.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err("the file has none".to_owned()) } else { Ok(roots) }
}

impl TlsProvider for Tls {
    fn connect(
        &self,
        server_name: String,
        transport: Box<dyn TlsTransport>,
    ) -> Pin<Box<dyn Future<Output = Result<Box<dyn TlsStream>, Error>> + Send>> {
        let tls = self.clone();
        Box::pin(async move {
            let server = ServerName::try_from(server_name).map_err(|_| Error::msg("invalid server name"))?;
            let connection = Tls::connect(&tls, server, transport, Inside::Any).await?;
            Ok(Box::new(Stream(connection)) as Box<dyn TlsStream>)
        })
    }
}

/// Neither the type nor the trait is ours.
struct Stream(Connection<Box<dyn TlsTransport>>);

impl TlsStream for Stream {}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
