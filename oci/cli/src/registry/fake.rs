//! A registry in this process that does what a test tells it to do wrong. Right behaviour is for the real one, end to end.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use oci_spec::image::{Descriptor, Digest, MediaType};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

use crate::{reference::Reference, store::sha256};

/// What happens to the next request whose first line contains a text.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This answer, with a content-length unless it has one, and the connection ends.
    Answer(&'static str),
    /// So many bytes of the body, and the connection ends.
    Cut(usize),
    /// All of the blob, whatever range was asked for.
    IgnoreRange,
    /// The connection ends when so many bytes of the request's body were read.
    CutRequest(usize),
    /// Another body of the same length.
    Damage,
}

/// Blobs, manifests, and what was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// By tag and by digest: media type and bytes.
    pub(crate) manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub(crate) faults: VecDeque<(&'static str, Fault)>,
    /// `METHOD PATH`, and the range if there was one.
    pub(crate) requests: Vec<String>,
    /// User and password as `Basic` sends them, if they are to be asked for.
    pub(crate) basic: Option<&'static str>,
    /// The token that it takes, if it takes one; the server for it gives it to everybody.
    pub(crate) bearer: Option<&'static str>,
    /// What the token server was asked: query, body, and authorization.
    pub(crate) token_requests: Vec<String>,
    /// Blobs that other repositories have.
    pub(crate) elsewhere: BTreeMap<String, Vec<u8>>,
}

/// The registry and its address.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) state: Rc<RefCell<State>>,
    pub(crate) host: String,
}

impl Fake {
    /// Runs `test` beside a fake registry.
    pub(crate) fn with<F: Future<Output = ()>>(test: impl FnOnce(Fake) -> F) {
        super::install_tls();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let fake = Fake { state: Rc::default(), host };
            let state = Rc::clone(&fake.state);
            spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let state = Rc::clone(&state);
                    // A client that goes away is none of our concern.
                    spawn_local(async move { serve(stream, &state).await.unwrap_or_default() });
                }
            });
            test(fake).await;
        });
    }

    pub(crate) fn reference(&self, end: &str) -> Reference {
        format!("{}/{end}", self.host).parse().unwrap()
    }

    pub(crate) fn fault(&self, request: &'static str, fault: Fault) {
        self.state.borrow_mut().faults.push_back((request, fault));
    }

    /// Gives it a blob.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = sha256(Sha256::new_with_prefix(bytes));
        self.state.borrow_mut().blobs.insert(digest.clone(), bytes.to_vec());
        Descriptor::new(MediaType::from(media_type), bytes.len() as u64, digest.parse::<Digest>().unwrap())
    }

    /// Gives it a manifest or index.
    pub(crate) fn manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = sha256(Sha256::new_with_prefix(bytes));
        for name in [tag, &digest] {
            self.state.borrow_mut().manifests.insert(name.to_owned(), (media_type.to_owned(), bytes.to_vec()));
        }
        Descriptor::new(MediaType::from(media_type), bytes.len() as u64, digest.parse::<Digest>().unwrap())
    }

    /// The requests that contain `text`.
    pub(crate) fn asked(&self, text: &str) -> Vec<String> {
        self.state.borrow().requests.iter().filter(|request| request.contains(text)).cloned().collect()
    }
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

async fn serve(mut stream: TcpStream, state: &Rc<RefCell<State>>) -> std::io::Result<()> {
    while let Some((request, mut body)) = head(&mut stream).await? {
        let range = request.headers.get("range").cloned();
        let line = format!("{} {}", request.method, request.path);
        let fault = {
            let mut state = state.borrow_mut();
            state.requests.push(line.clone() + &range.as_ref().map_or(String::new(), |range| format!(" {range}")));
            let found = state.faults.iter().position(|(text, _)| line.contains(text));
            found.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault)
        };
        let length: usize = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let wanted = if let Some(Fault::CutRequest(bytes)) = fault { bytes } else { length };
        while body.len() < wanted {
            if stream.read_buf(&mut body).await? == 0 {
                return Ok(());
            }
        }
        let (mut head, body) = match fault {
            Some(Fault::CutRequest(_)) => return Ok(()),
            Some(Fault::Answer(answer)) => return stream.write_all(with_length(answer).as_bytes()).await,
            _ => answer(&request, body, &mut state.borrow_mut()),
        };
        let body = match (range.and_then(|range| from(&range)), &fault) {
            (_, Some(Fault::IgnoreRange)) | (None, _) => body,
            (Some(start), _) => {
                let total = body.len();
                head =
                    format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{total}\r\n", total - 1);
                body[start..].to_vec()
            }
        };
        let length = body.len();
        let body = match fault {
            Some(Fault::Cut(bytes)) => body[..bytes.min(length)].to_vec(),
            Some(Fault::Damage) => body.iter().map(|byte| byte ^ 1).collect(),
            _ => body,
        };
        let cut = body.len() < length;
        let sent = if request.method == "HEAD" { &[][..] } else { &body };
        stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await?;
        stream.write_all(sent).await?;
        if cut {
            return Ok(());
        }
    }
    Ok(())
}

fn with_length(answer: &str) -> String {
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if !head.contains("content-length") => {
            format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        }
        _ => answer.to_owned(),
    }
}

/// Where a range `bytes=START-` starts.
fn from(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The head of the next request, and what came of its body with it.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<(Request, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Ok(Some((Request { method, path, headers }, bytes[end + 4..].to_vec())))
}

/// What a sound registry would answer: the head without its end, and the body.
fn answer(request: &Request, body: Vec<u8>, state: &mut State) -> (String, Vec<u8>) {
    let says = |line: &str| (format!("HTTP/1.1 {line}\r\n"), Vec::new());
    if let Some(basic) = state.basic
        && request.headers.get("authorization").is_none_or(|given| given != &format!("Basic {basic}"))
    {
        return says("401 Unauthorized\r\nwww-authenticate: Basic realm=\"fake\"");
    }
    if request.path.starts_with("/token") {
        let query = request.path.split_once('?').map_or("", |(_, query)| query);
        let authorization = request.headers.get("authorization").map_or("", String::as_str);
        state.token_requests.push(format!("{query} {} {authorization}", String::from_utf8(body).unwrap()));
        let token = json!({"token": state.bearer}).to_string();
        return ("HTTP/1.1 200 OK\r\n".to_owned(), token.into_bytes());
    }
    if let Some(bearer) = state.bearer
        && request.headers.get("authorization").is_none_or(|given| given != &format!("Bearer {bearer}"))
    {
        let host = &request.headers["host"];
        return says(&format!(
            "401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{host}/token\",service=\"fake\",scope=\"repository:x:pull\""
        ));
    }
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let query: BTreeMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3A", ":").replace("%2F", "/")))
        .collect();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    match (request.method.as_str(), path.contains("/manifests/")) {
        ("GET" | "HEAD", true) => match state.manifests.get(&name) {
            Some((media_type, bytes)) => (format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\n"), bytes.clone()),
            None => says("404 Not Found"),
        },
        ("GET" | "HEAD", false) => match state.blobs.get(&name) {
            Some(bytes) => ("HTTP/1.1 200 OK\r\n".to_owned(), bytes.clone()),
            None => says("404 Not Found"),
        },
        ("PUT", true) => {
            let media_type = request.headers.get("content-type").cloned().unwrap_or_default();
            let digest = sha256(Sha256::new_with_prefix(&body));
            state.manifests.insert(name, (media_type.clone(), body.clone()));
            state.manifests.insert(digest, (media_type, body));
            says("201 Created\r\nlocation: /v2/here")
        }
        ("POST", _) => match query.get("mount").and_then(|digest| Some((digest, state.elsewhere.get(digest)?.clone())))
        {
            Some((digest, bytes)) => {
                state.blobs.insert(digest.clone(), bytes);
                says("201 Created\r\nlocation: /v2/here")
            }
            None => says("202 Accepted\r\nlocation: /v2/x/blobs/uploads/1?_state=a"),
        },
        ("PUT", false) => {
            let digest = sha256(Sha256::new_with_prefix(&body));
            if query.get("digest") != Some(&digest) {
                return says("400 Bad Request");
            }
            state.blobs.insert(digest, body);
            says("201 Created\r\nlocation: /v2/here")
        }
        _ => says("405 Method Not Allowed"),
    }
}
