//! Accepts connections, hands requests on, and comes to an orderly end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER},
};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use lighter_runtime_api::{Error, Http, Ready};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    body::{Download, Record},
    ends::Ends,
    instances::{Failure, Instances},
    metrics::{self, Counted, Metrics},
    progress::Progress,
};
use crate::backend::failed;

/// Connections that the kernel holds ready.
const BACKLOG: u32 = 4096;
/// How long a client may take for a request's head, and how long a connection may be idle; a load balancer's own limit is
/// a minute as a rule, and it must be the first to close.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 128;
/// How long connections that are idle stay open when the server ends: a request may be on its way.
const LAST_CALL: Duration = Duration::from_millis(500);
/// Between two looks at what can't be waited for.
const LOOK: Duration = Duration::from_millis(5);
/// How long the rest of the first four bytes may take.
const REST: Duration = Duration::from_secs(1);
/// After a failure to accept, which is for want of descriptors or memory.
const BREATH: Duration = Duration::from_millis(20);
/// What a connection begins with in HTTP/2. Source: RFC 9113 §3.4.
const PREFACE: &[u8; 4] = b"PRI ";

/// What connections share.
struct Server {
    instances: Arc<Instances>,
    address: HeaderValue,
    patience: Option<Duration>,
    /// Whether connections are to end with their next response.
    ending: AtomicBool,
}

/// What tells a connection that the server ends.
struct Leave {
    /// Once it has said what it speaks.
    watcher: Watcher,
    /// Before.
    left: watch::Receiver<()>,
}

/// Serves until it is told to end, then until all requests are answered.
pub(super) async fn run(instances: Arc<Instances>, http: &Http, connections: u32, ready: Ready) -> Result<(), Error> {
    let mut ends = Ends::new().map_err(failed("handle signals"))?;
    let listener = listen(http.address, "http.address")?;
    let metrics = http.metrics.map(|address| listen(address, "http.metrics")).transpose()?;
    let address = HeaderValue::from_str(&http.address.to_string()).map_err(failed("name own address"))?;
    let server = Arc::new(Server {
        instances: Arc::clone(&instances),
        address,
        patience: http.timeout,
        ending: AtomicBool::new(false),
    });
    if let Some(listener) = metrics {
        tokio::spawn(serve_metrics(listener, Arc::clone(&instances.metrics)));
    }
    tokio::spawn(Arc::clone(&instances).tidy());
    let (graceful, leave) = (GracefulShutdown::new(), watch::Sender::new(()));
    let leaving = || Leave { watcher: graceful.watcher(), left: leave.subscribe() };
    let places = Arc::new(Semaphore::new(usize::try_from(connections).unwrap_or(usize::MAX)));
    ready();

    let mut accept = Box::pin(async {
        loop {
            // It is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = Arc::clone(&server).connection(stream, leaving());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                // Of one connection, or of the process: the client sees the former, others should not suffer by the latter.
                Err(_) => sleep(BREATH).await,
            }
        }
    });
    tokio::select! {
        () = &mut accept => {}
        () = ends.wait() => {}
    }

    server.ending.store(true, Ordering::Relaxed);
    tokio::select! {
        _ = timeout(http.linger, accept) => {}
        // Told twice, it is in a hurry.
        () = ends.wait() => {}
    }
    // Those that the kernel has accepted already are clients like others.
    while let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
        tokio::spawn(Arc::clone(&server).connection(stream, leaving()));
    }
    drop(listener);
    let open = &instances.metrics.connections;
    let _ = timeout(LAST_CALL, async {
        while open.get() > 0 {
            sleep(LOOK).await;
        }
    })
    .await;
    leave.send_replace(());
    graceful.shutdown().await;
    instances.finished().await;
    Ok(())
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, leave: Leave) {
        let Leave { watcher, mut left } = leave;
        let _counted = Counted::new(&self.instances.metrics.connections);
        // Responses come in pieces that should not wait for each other.
        let _ = stream.set_nodelay(true);
        // A client that takes nothing is given up by the kernel.
        let _ = set_tcp_user_timeout(&stream, self.patience.map_or(0, |p| u32::try_from(p.as_millis()).unwrap_or(0)));
        let is_http2 = tokio::select! {
            spoken = timeout(HEAD_TIMEOUT, speaks_http2(&stream)) => match spoken {
                Ok(Ok(is_http2)) => is_http2,
                // It said nothing, or is gone.
                Ok(Err(_)) | Err(_) => return,
            },
            _ = left.changed() => return,
        };
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        // What ends a connection is the client's doing, or was said where it happened.
        if is_http2 {
            let mut http2 = http2::Builder::new(TokioExecutor::new());
            http2.timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).max_concurrent_streams(STREAMS);
            http2.max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
            let _ = watcher.watch(http2.serve_connection(TokioIo::new(stream), service)).await;
        } else {
            let mut http1 = http1::Builder::new();
            http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
            let _ = watcher.watch(http1.serve_connection(TokioIo::new(stream), service)).await;
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Download> {
        let progress = Progress::new(self.patience);
        let record = Record::new(&self.instances.metrics, progress.clone());
        let (version, wants_body) = (request.version(), request.method() != Method::HEAD);
        let mut response = match self.complete(&mut request) {
            Err(text) => own(StatusCode::BAD_REQUEST, text, record),
            Ok(()) => match self.instances.answer(request, &progress).await {
                Ok(response) => {
                    let status = response.status();
                    // Over HTTP/2 nobody else leaves it out.
                    response.map(|body| match wants_body {
                        true => Download::guest(status, body, record),
                        false => Download::text(status, "", record),
                    })
                }
                Err(Failure::Failed) => {
                    own(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed; its log says why\n", record)
                }
                Err(Failure::Stalled) => own(StatusCode::GATEWAY_TIMEOUT, "the handler took too long\n", record),
                Err(Failure::Busy) => {
                    let mut response = own(StatusCode::SERVICE_UNAVAILABLE, "the handler is busy\n", record);
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                    response
                }
            },
        };
        if self.ending.load(Ordering::Relaxed) && version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Sees to it that the request says for whom it is, which the guest is promised.
    fn complete(&self, request: &mut Request<Incoming>) -> Result<(), &'static str> {
        if request.uri().authority().is_some() {
            return Ok(());
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(_), Some(_)) => Err("more than one Host header\n"),
            (Some(host), None) if host.to_str().is_err() => Err("the Host header is not text\n"),
            (Some(_), None) => Ok(()),
            // RFC 9112 §3.2 demands it of a client that speaks HTTP/1.1.
            (None, _) if request.version() == Version::HTTP_11 => Err("there is no Host header\n"),
            (None, _) => {
                request.headers_mut().insert(HOST, self.address.clone());
                Ok(())
            }
        }
    }
}

/// A response of the server's.
fn own(status: StatusCode, text: &'static str, record: Record) -> Response<Download> {
    let mut response = Response::new(Download::text(status, text, record));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Whether the client begins as HTTP/2 does; nothing is taken from the stream.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut head = [0; PREFACE.len()];
    stream.readable().await?;
    let began = Instant::now();
    // A client that stops in the middle, or is gone, looks the same from here.
    while began.elapsed() < REST {
        let length = stream.peek(&mut head).await?;
        if length == 0 || head[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // There is something to read, but not enough; the stream can't be asked to wait for more.
        sleep(LOOK).await;
    }
    Ok(false)
}

fn listen(address: SocketAddr, annotation: &str) -> Result<TcpListener, Error> {
    let listen = || -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // The one before us may have left connections behind.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| Error::Engine {
        operation: "listen for HTTP requests",
        why: format!("{address}: {error}; choose another address with the annotation run.lighter.{annotation}"),
    })
}

/// Serves the metrics, to whomever.
async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>) {
    // Scrapers are few.
    let places = Arc::new(Semaphore::new(16));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(BREATH).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(|_: Request<Incoming>| async {
                let mut response = Response::new(Full::new(Bytes::from(metrics.text())));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
                Ok::<_, Infallible>(response)
            });
            let mut http1 = http1::Builder::new();
            http1.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let _ = http1.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}
