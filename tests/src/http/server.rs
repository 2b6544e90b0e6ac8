//! A plain server on hyper: what guests send requests to, and the limit that the bench measures against.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::{Bed, network};

/// What [`hello`] answers.
const HELLO: &[u8] = b"hello from wasi:http\n";

/// A server in a bed; gone when dropped. It answers each request with what it got: the request's line and headers, one a
/// line, an empty line, and the body.
pub struct Server {
    address: SocketAddr,
    /// Dropped, it ends the server.
    _over: oneshot::Sender<()>,
}

impl Server {
    /// On a port of the loopback address.
    #[track_caller]
    pub fn start(bed: &Bed) -> Server {
        let (init, (over, ended)) = (bed.init(), oneshot::channel());
        let (sender, listening) = mpsc::channel();
        thread::spawn(move || match listen(init) {
            Ok((listener, address)) => {
                // The test waits for it.
                let _ = sender.send(Ok(address));
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("an event loop").block_on(async {
                    tokio::select! {
                        served = serve(listener, reflect) => served.expect("accept connections"),
                        _ = ended => {}
                    }
                });
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        });
        let address = listening.recv().context("hear from the server").and_then(|address| address);
        Server { address: address.unwrap_or_else(|error| panic!("no server: {error:#}")), _over: over }
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes this thread into the bed's network.
fn listen(init: u32) -> Result<(TcpListener, SocketAddr)> {
    network::enter(init)?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen in the bed")?;
    let address = listener.local_addr().context("address of the listener")?;
    Ok((listener, address))
}

/// Serves a greeting on as many threads as there are processors, for ever.
///
/// # Errors
/// When it can't listen there.
pub fn hello(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start event loops")?;
    let greet = |_: Request<Incoming>| async { Ok(Response::new(Full::new(Bytes::from_static(HELLO)))) };
    // On a worker: the thread that blocks is none.
    runtime.block_on(async { tokio::spawn(serve(listener, greet)).await })?.context("accept connections")
}

async fn serve<F>(
    listener: TcpListener,
    answer: impl Fn(Request<Incoming>) -> F + Copy + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // An error is the connection's end, which is what the client sees.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn reflect(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    text.push(b'\n');
    text.extend(body.collect().await.map(|body| body.to_bytes()).unwrap_or_default());
    Ok(Response::new(Full::new(text.into())))
}
