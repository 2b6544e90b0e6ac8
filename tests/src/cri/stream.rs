//! Streams into pods by WebSocket, as the API server opens them.
//!
//! Source: kubernetes, `staging/src/k8s.io/kubelet/pkg/cri/streaming`. A message's first byte is its channel.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;
use tungstenite::{Message, WebSocket, client::IntoClientRequest, http::HeaderValue};

use super::COMES_WITHIN;
use crate::Bed;

/// What both containerds speak. There is no end of file for stdin in it: that came with `v5`, which only the API server speaks.
const PROTOCOL: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
/// How it ended: a `Status` of Kubernetes' API, as JSON.
const ERROR: u8 = 3;
/// The terminal's size: `{"Width": 80, "Height": 24}`.
const RESIZE: u8 = 4;

/// The streams of an exec or an attach.
pub struct Channels {
    socket: WebSocket<TcpStream>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ended: Option<Value>,
    closed: bool,
}

impl Channels {
    #[track_caller]
    pub(super) fn open(bed: &Bed, url: &str) -> Channels {
        let socket = connect(bed, url);
        Channels { socket, stdout: Vec::new(), stderr: Vec::new(), ended: None, closed: false }
    }

    /// Writes to stdin.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        send(&mut self.socket, STDIN, bytes.as_ref());
    }

    /// Sets the terminal's size.
    #[track_caller]
    pub fn resize(&mut self, width: u16, height: u16) {
        let size = serde_json::json!({"Width": width, "Height": height}).to_string();
        send(&mut self.socket, RESIZE, size.as_bytes());
    }

    /// Waits until stdout holds this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + COMES_WITHIN;
        while !self.stdout().contains(text) {
            assert!(
                !self.closed && Instant::now() < deadline,
                "no {text:?} on stdout: {:?}, stderr: {:?}, ended: {:?}",
                self.stdout(),
                self.stderr(),
                self.ended
            );
            self.receive();
        }
    }

    /// Waits for the end, and returns the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + COMES_WITHIN;
        while !self.closed {
            assert!(Instant::now() < deadline, "no end; stdout: {:?}, stderr: {:?}", self.stdout(), self.stderr());
            self.receive();
        }
        let Some(ended) = &self.ended else { panic!("it does not say how it ended; stdout: {:?}", self.stdout()) };
        if ended["status"] == "Success" {
            return 0;
        }
        let causes = ended["details"]["causes"].as_array().into_iter().flatten();
        let code = causes
            .filter(|cause| cause["reason"] == "ExitCode")
            .find_map(|cause| cause["message"].as_str()?.parse().ok());
        code.unwrap_or_else(|| panic!("no exit code in {ended}"))
    }

    /// What came on stdout.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What came on stderr.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    #[track_caller]
    fn receive(&mut self) {
        match receive(&mut self.socket) {
            Received::Nothing => {}
            Received::Closed => self.closed = true,
            Received::Message(STDOUT, bytes) => self.stdout.extend(bytes),
            Received::Message(STDERR, bytes) => self.stderr.extend(bytes),
            Received::Message(ERROR, bytes) => {
                let ended = serde_json::from_slice(&bytes);
                self.ended = Some(ended.unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()));
            }
            Received::Message(other, bytes) => panic!("{} bytes on channel {other}", bytes.len()),
        }
    }
}

/// A connection to a port of a pod.
pub struct Forward {
    socket: WebSocket<TcpStream>,
    received: Vec<u8>,
    error: Vec<u8>,
    closed: bool,
}

impl Forward {
    #[track_caller]
    pub(super) fn open(bed: &Bed, url: &str, port: u16) -> Forward {
        let socket = connect(bed, &format!("{url}?port={port}"));
        let mut forward = Forward { socket, received: Vec::new(), error: Vec::new(), closed: false };
        // Each of the two channels begins with the port.
        let deadline = Instant::now() + COMES_WITHIN;
        while forward.received.len() < 2 || forward.error.len() < 2 {
            assert!(!forward.closed && Instant::now() < deadline, "port {port} was not forwarded");
            forward.receive();
        }
        for begin in [&mut forward.received, &mut forward.error] {
            assert_eq!(begin.drain(..2).collect::<Vec<_>>(), port.to_le_bytes());
        }
        forward
    }

    /// Writes.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        send(&mut self.socket, 0, bytes.as_ref());
    }

    /// Whether this comes before the connection ends.
    #[track_caller]
    pub fn receives(&mut self, text: &str) -> bool {
        let deadline = Instant::now() + COMES_WITHIN;
        while !self.text().contains(text) && !self.closed && self.error.is_empty() {
            assert!(Instant::now() < deadline, "no {text:?}: {:?}", self.text());
            self.receive();
        }
        self.text().contains(text)
    }

    /// Waits until the connection fails, and returns why.
    #[track_caller]
    pub fn fails(mut self) -> String {
        let deadline = Instant::now() + COMES_WITHIN;
        while self.error.is_empty() {
            assert!(!self.closed && Instant::now() < deadline, "no error: {:?}", self.text());
            self.receive();
        }
        self.error()
    }

    /// What came.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    fn error(&self) -> String {
        String::from_utf8_lossy(&self.error).into_owned()
    }

    #[track_caller]
    fn receive(&mut self) {
        match receive(&mut self.socket) {
            Received::Nothing => {}
            Received::Closed => self.closed = true,
            Received::Message(0, bytes) => self.received.extend(bytes),
            Received::Message(_, bytes) => self.error.extend(bytes),
        }
    }
}

enum Received {
    /// Not yet.
    Nothing,
    Message(u8, Vec<u8>),
    Closed,
}

/// The socket stays in the bed's network, wherever its user is.
#[track_caller]
fn connect(bed: &Bed, url: &str) -> WebSocket<TcpStream> {
    let mut request = url.replacen("http://", "ws://", 1).into_client_request().expect("an address of a stream");
    let address = request.uri().authority().expect("host and port").to_string();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
    let stream = bed.in_network(|| TcpStream::connect(&address));
    let stream = stream.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    let (socket, _) = tungstenite::client(request, stream).unwrap_or_else(|error| panic!("open {url}: {error}"));
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(100))).expect("set a timeout");
    socket
}

#[track_caller]
fn send(socket: &mut WebSocket<TcpStream>, channel: u8, bytes: &[u8]) {
    let message = Message::binary([&[channel], bytes].concat());
    socket.send(message).unwrap_or_else(|error| panic!("send on channel {channel}: {error}"));
}

#[track_caller]
fn receive(socket: &mut WebSocket<TcpStream>) -> Received {
    match socket.read() {
        Ok(Message::Binary(bytes)) if !bytes.is_empty() => Received::Message(bytes[0], bytes[1..].to_vec()),
        Ok(Message::Text(text)) => panic!("text in place of bytes: {text}"),
        Ok(_) => Received::Nothing,
        Err(tungstenite::Error::Io(error)) if is_timeout(&error) => Received::Nothing,
        // Whoever closes in which way: what matters has come before.
        Err(_) => Received::Closed,
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
