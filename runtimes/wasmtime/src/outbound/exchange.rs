//! One request and its response, on a connection of their own.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    rt::Executor,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::{Instant, Sleep, sleep, timeout},
};
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, io::TokioIo};

use super::hosts::{Destination, Host};
use crate::tls::{Inside, Tls};

/// How long a connection may take to be made, TLS included, where the guest doesn't say.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a response's head may take, and each piece of its body, where the guest doesn't say: what asks for an answer
/// now and then waits for minutes.
const WAIT: Duration = Duration::from_secs(600);

/// Drives a connection to its end.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Sends a request. The second value drives the connection while the response's body is read.
///
/// # Errors
/// What `wasi:http` calls an error code.
pub(super) async fn send(
    tls: &Tls,
    destination: &Destination,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<TimedBody>, impl Future<Output = Result<()>> + Send + use<>)> {
    let connected = timeout(options.connect_timeout.unwrap_or(CONNECT), connect(tls, destination));
    let (sender, mut driver) = connected.await.map_err(|_| Error::ConnectionTimeout)??;
    let head = timeout(options.first_byte_timeout.unwrap_or(WAIT), sender.send(request));
    let (response, ended) = drive(head, &mut driver).await?;
    let between = options.between_bytes_timeout.unwrap_or(WAIT);
    let response = response.map(|body| TimedBody { body, between, deadline: Box::pin(sleep(between)) });
    let rest = async move { if ended { Ok(()) } else { driver.await.map_err(of_hyper) } };
    Ok((response, rest))
}

/// Waits for a response's head while the connection moves on; also says whether it ended doing so.
async fn drive(
    head: impl Future<Output = std::result::Result<hyper::Result<Response<Incoming>>, tokio::time::error::Elapsed>>,
    driver: &mut Driver,
) -> Result<(Response<Incoming>, bool)> {
    let (mut head, mut ended, mut broken) = (pin!(head), false, None);
    poll_fn(|cx| {
        if !ended && let Poll::Ready(end) = driver.as_mut().poll(cx) {
            (ended, broken) = (true, end.err());
        }
        match (head.as_mut().poll(cx), broken.take()) {
            (Poll::Ready(Ok(Ok(response))), _) => Poll::Ready(Ok((response, ended))),
            (Poll::Ready(Ok(Err(error))), _) | (Poll::Pending, Some(error)) => Poll::Ready(Err(of_hyper(error))),
            (Poll::Ready(Err(_)), _) => Poll::Ready(Err(Error::ConnectionReadTimeout)),
            (Poll::Pending, None) => Poll::Pending,
        }
    })
    .await
}

async fn connect(tls: &Tls, destination: &Destination) -> Result<(Sender, Driver)> {
    let stream = match &destination.host {
        Host::Ip(address) => TcpStream::connect((*address, destination.port)).await.map_err(of_connect)?,
        Host::Name(name) => connect_to_name(name, destination.port).await?,
    };
    // Heads are written in one piece and must not wait for the next.
    let _ = stream.set_nodelay(true);
    if !destination.tls {
        return http1(stream).await;
    }
    let server = match &destination.host {
        Host::Ip(address) => ServerName::from(*address),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid)?,
    };
    let stream = tls.connect(server, stream, Inside::Http).await.map_err(of_tls)?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return http1(stream).await;
    }
    let (sender, connection) = http2::handshake(Spawn, TokioIo::new(stream)).await.map_err(of_hyper)?;
    Ok((Sender::Http2(sender), Box::pin(connection)))
}

async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(Sender, Driver)> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(of_hyper)?;
    Ok((Sender::Http1(sender), Box::pin(connection)))
}

/// Tries a name's addresses in the resolver's order.
async fn connect_to_name(name: &str, port: u16) -> Result<TcpStream> {
    let unknown = |why: Option<io::Error>| Error::DnsError { rcode: why.map(|why| why.to_string()), info_code: None };
    let mut failed = None;
    for address in lookup_host((name, port)).await.map_err(|error| unknown(Some(error)))? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.map_or_else(|| unknown(None), of_connect))
}

/// A connection that takes one request.
enum Sender {
    Http1(http1::SendRequest<WasiBody>),
    Http2(http2::SendRequest<WasiBody>),
}

impl Sender {
    async fn send(self, mut request: Request<WasiBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(mut sender) => {
                // A whole URI is for proxies. The authority is in `Host`.
                let path = request.uri().path_and_query().cloned();
                *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
                sender.send_request(request).await
            }
            Self::Http2(mut sender) => {
                // The other way round, and one header is split no longer: `te` may say nothing but this.
                request.headers_mut().remove(header::HOST);
                if request.headers().contains_key(header::TE) {
                    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
                }
                *request.version_mut() = http::Version::HTTP_2;
                sender.send_request(request).await
            }
        }
    }
}

/// Runs what HTTP/2 has to do beside the connection itself.
#[derive(Clone, Copy, Debug)]
struct Spawn;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// A response's body, each piece of which has to come in time.
pub(super) struct TimedBody {
    body: Incoming,
    between: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.deadline.as_mut().reset(Instant::now() + this.between);
            return Poll::Ready(frame.map(|frame| frame.map_err(of_hyper)));
        }
        this.deadline.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn of_connect(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Error::ConnectionTerminated,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        io::ErrorKind::PermissionDenied => Error::DestinationIpProhibited,
        _ => Error::DestinationUnavailable,
    }
}

fn of_tls(error: io::Error) -> Error {
    match error.downcast::<rustls::Error>() {
        Ok(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => Error::TlsCertificateError,
        Ok(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(alert.into()), alert_message: Some(format!("{alert:?}")) }
        }
        Ok(_) => Error::TlsProtocolError,
        Err(error) if error.kind() == io::ErrorKind::Other => Error::ConfigurationError,
        Err(error) => of_connect(error),
    }
}

fn of_hyper(error: hyper::Error) -> Error {
    if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else if error.is_closed() || error.is_canceled() {
        Error::ConnectionTerminated
    } else {
        Error::HttpProtocolError
    }
}
