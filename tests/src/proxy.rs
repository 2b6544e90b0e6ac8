//! A proxy before a registry that fails as networks and registries do, and tells what was asked of it.
//!
//! Its threads are the test's own, in the bed's network namespace. It speaks just enough of HTTP/1.1 to know one request
//! from the next: each gets a connection of its own.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{Bed, network};

/// What goes wrong. Faults of a blob leave those below 64 KiB alone: manifests and configs get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of a blob.
    Cut(u64),
    /// After so many bytes of a blob nothing more comes, until the proxy goes.
    Stall(u64),
    /// Half of a blob, with headers that call it all.
    Short,
    /// A byte in the middle of a blob is another.
    Corrupt,
    /// The connection ends after so many bytes of an upload.
    CutUpload(u64),
    /// This status in place of an answer, where a blob or a manifest is asked for; with a `Retry-After` in seconds.
    Status(u16, Option<u32>),
    /// A manifest that is pushed is refused, as by registries that know no WebAssembly.
    RefuseManifest,
}

/// What a client asked for, and the status that it got: 0 where the connection ended before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The header `Range`.
    pub range: Option<String>,
    /// Of the registry or of the fault.
    pub status: u16,
}

/// A proxy in a bed; gone when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    fault: Fault,
    /// How many times it is to happen still.
    left: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    over: AtomicBool,
}

/// Blobs up to this size are documents.
const DOCUMENT: u64 = 64 * 1024;

/// A head of a request or an answer that is longer is none.
const MAX_HEAD: u64 = 64 * 1024;

/// How soon it notices that it is to end.
const NAP: Duration = Duration::from_millis(10);

impl Proxy {
    /// A proxy in `bed` before the registry at `upstream`, of which the first `times` that `fault` applies to fail.
    #[track_caller]
    pub fn start(bed: &Bed, upstream: &str, fault: Fault, times: usize) -> Proxy {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            fault,
            left: AtomicUsize::new(times),
            requests: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let (sender, address) = mpsc::channel();
        let (init, serving) = (bed.init(), Arc::clone(&shared));
        thread::spawn(move || match listen(init) {
            Ok((listener, address)) => {
                // The test waits for it.
                let _ = sender.send(Ok(address));
                serve(&listener, &serving);
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        });
        let address = address.recv().context("hear from the proxy").and_then(|address| address);
        Proxy { address: address.unwrap_or_else(|error| panic!("no proxy: {error:#}")), shared }
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What was asked for so far, in the order of the answers.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }

    /// How many times the fault has yet to happen.
    pub fn faults_left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn requests(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether the fault happens now, given that it can.
    fn happens(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.left.try_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

/// Takes this thread into the bed's network. Threads that it starts are there as well.
fn listen(init: u32) -> Result<(TcpListener, SocketAddr)> {
    network::enter(init)?;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen in the bed")?;
    listener.set_nonblocking(true).context("make the listener non-blocking")?;
    let address = listener.local_addr().context("address of the listener")?;
    Ok((listener, address))
}

fn serve(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.over() {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(NAP);
            continue;
        };
        let shared = Arc::clone(shared);
        // An error is the connection's end, which is what the client sees.
        thread::spawn(move || {
            let _ = client.set_nonblocking(false).and_then(|()| answer(&client, &shared));
            let _ = client.shutdown(Shutdown::Both);
        });
    }
}

/// One request, from its first byte to the last one of its answer.
fn answer(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut from_client = BufReader::new(client);
    let head = Head::read(&mut from_client)?;
    let mut words = head.first.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let request = Request { method: word(), path: word(), range: head.header("range").map(str::to_owned), status: 0 };
    let note = |status| shared.requests().push(Request { status, ..request.clone() });

    if let Fault::Status(status, retry_after) = shared.fault
        && (request.path.contains("/blobs/") || request.path.contains("/manifests/"))
        && shared.happens()
    {
        note(status);
        let retry_after = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
        return refuse(client, status, &retry_after, "");
    }
    if shared.fault == Fault::RefuseManifest
        && request.method == "PUT"
        && request.path.contains("/manifests/")
        && shared.happens()
    {
        note(400);
        return refuse(client, 400, "", r#"{"errors":[{"code":"MANIFEST_INVALID","message":"unknown config"}]}"#);
    }
    let upstream = TcpStream::connect(&shared.upstream)?;
    (&upstream).write_all(&head.with_close())?;
    thread::scope(|scope| {
        scope.spawn(|| upload(&mut from_client, client, &upstream, &request, shared));
        let mut from_upstream = BufReader::new(&upstream);
        let relayed = match Head::read(&mut from_upstream) {
            Ok(head) => {
                note(head.status());
                download(&head, &mut from_upstream, client, &request, shared)
            }
            Err(error) => {
                note(0);
                Err(error)
            }
        };
        // Which ends the upload too.
        let _ = client.shutdown(Shutdown::Both);
        let _ = upstream.shutdown(Shutdown::Both);
        relayed
    })
}

fn refuse(mut client: &TcpStream, status: u16, header: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} of the testbed\r\n{header}Content-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // A connection that is closed before all of it was read is reset, and takes the answer with it.
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    io::copy(&mut client, &mut io::sink()).map(drop)
}

fn upload(from: &mut impl Read, client: &TcpStream, mut upstream: &TcpStream, request: &Request, shared: &Shared) {
    let is_upload =
        request.path.contains("/blobs/uploads/") && matches!(request.method.as_str(), "PATCH" | "PUT" | "POST");
    if let Fault::CutUpload(after) = shared.fault
        && is_upload
    {
        let copied = io::copy(&mut from.take(after), &mut upstream);
        if copied.is_ok_and(|copied| copied == after) && shared.happens() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = upstream.shutdown(Shutdown::Both);
            return;
        }
    }
    // Ends with the connection; an error on the way is one for the other direction as well.
    let _ = io::copy(from, &mut upstream);
}

fn download(
    head: &Head,
    from: &mut impl Read,
    mut client: &TcpStream,
    request: &Request,
    shared: &Shared,
) -> io::Result<()> {
    let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let is_layer = request.method == "GET" && request.path.contains("/blobs/") && length > DOCUMENT;
    let middle = length / 2;
    match shared.fault {
        Fault::Cut(after) if is_layer && length > after && shared.happens() => {
            client.write_all(&head.with_close())?;
            io::copy(&mut from.take(after), &mut client)?;
        }
        Fault::Stall(after) if is_layer && length > after && shared.happens() => {
            client.write_all(&head.with_close())?;
            io::copy(&mut from.take(after), &mut client)?;
            while !shared.over() {
                thread::sleep(NAP);
            }
        }
        Fault::Short if is_layer && shared.happens() => {
            client.write_all(&head.with_length(middle).with_close())?;
            io::copy(&mut from.take(middle), &mut client)?;
        }
        Fault::Corrupt if is_layer && shared.happens() => {
            client.write_all(&head.with_close())?;
            io::copy(&mut from.take(middle), &mut client)?;
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            client.write_all(&[!byte[0]])?;
            io::copy(from, &mut client)?;
        }
        _ => {
            client.write_all(&head.with_close())?;
            io::copy(from, &mut client)?;
        }
    }
    Ok(())
}

/// The lines before a body.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(from: &mut impl BufRead) -> io::Result<Head> {
        let mut from = from.take(MAX_HEAD);
        let mut line = || {
            let mut line = String::new();
            match from.read_line(&mut line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let first = line()?;
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(Head { first, headers }) };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Of an answer.
    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn with_length(&self, length: u64) -> Head {
        let mut headers = self.headers.clone();
        for (_, value) in headers.iter_mut().filter(|(name, _)| name == "content-length") {
            *value = length.to_string();
        }
        Head { first: self.first.clone(), headers }
    }

    /// As it goes on: this is the connection's last request.
    fn with_close(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "connection") {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("connection: close\r\n\r\n");
        text.into_bytes()
    }
}
