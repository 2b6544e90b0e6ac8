//! One connection of a client that does as it should.

use std::{convert::Infallible, fmt, net::SocketAddr, pin::Pin, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Body, Incoming},
    client::conn::{http1, http2},
    http::request,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};

/// How long a response may take, of a server that works on it at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// What requests carry.
pub type RequestBody = BoxBody<Bytes, Infallible>;

/// Of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1, kept alive.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
}

impl Version {
    /// Both.
    pub const ALL: [Version; 2] = [Version::Http1, Version::Http2];
}

/// A connection. One of HTTP/2 takes requests while others are under way.
pub struct Connection {
    address: SocketAddr,
    sender: Sender,
}

enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// A response, all of it.
#[derive(Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// Without the trailers.
    pub headers: HeaderMap,
    /// Without its encoding.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: HeaderMap,
}

/// A response whose body is yet to come. Owns what it needs, so that a connection can have several.
pub type Pending = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens, or who listens speaks another protocol.
    pub async fn open(address: SocketAddr, version: Version) -> Result<Connection> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let stream = TokioIo::new(stream);
        let sender = match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(stream).await.context("speak HTTP/1.1")?;
                // Its end is seen by the requests on it.
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), stream).await.context("speak HTTP/2")?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { address, sender })
    }

    /// A request as this connection's version writes it: a path alone goes into a request of HTTP/1.1.
    pub fn request(&self, method: &str, path: &str) -> request::Builder {
        let request = Request::builder().method(method);
        match self.sender {
            Sender::Http1(_) => request.uri(path).header("host", self.address.to_string()),
            Sender::Http2(_) => request.uri(format!("http://{}{path}", self.address)),
        }
    }

    /// Sends it as soon as the connection is ready for it.
    pub async fn send(&mut self, request: Request<RequestBody>) -> hyper::Result<Pending> {
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                Box::pin(sender.send_request(request))
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Box::pin(sender.send_request(request))
            }
        })
    }

    /// Sends it and waits for the response's head.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn response(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>> {
        let pending = self.send(request).await.context("send a request")?;
        timeout(ANSWERS_WITHIN, pending).await.context("wait for a response")?.context("get a response")
    }

    /// Sends it and reads all of the response.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn exchange(&mut self, request: Request<RequestBody>) -> Result<Answer> {
        Answer::of(self.response(request).await?).await
    }

    /// `GET`.
    ///
    /// # Errors
    /// When the connection ends before the response has.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        let request = self.request("GET", path).body(Empty::new().boxed()).context("make a request")?;
        self.exchange(request).await.with_context(|| format!("GET {path}"))
    }

    /// `POST`, with a `content-length`.
    ///
    /// # Errors
    /// When the connection ends before the response has.
    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let request = self.request("POST", path).body(Full::new(body.into()).boxed()).context("make a request")?;
        self.exchange(request).await.with_context(|| format!("POST {path}"))
    }

    /// Whether the server has closed it.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Answer {
    /// Reads the rest of a response.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn of<B: Body<Error: std::error::Error + Send + Sync + 'static>>(
        response: Response<B>,
    ) -> Result<Answer> {
        let (head, body) = response.into_parts();
        let collected = timeout(ANSWERS_WITHIN, body.collect()).await.context("wait for a body")?;
        let collected = collected.with_context(|| format!("read the body of a {}", head.status))?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: collected.to_bytes(), trailers })
    }

    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert!(self.status == status, "expected {status}\n{self}");
        self
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}\n{:.2000}\n{:?}", self.status, self.headers, self.text(), self.trailers)
    }
}
