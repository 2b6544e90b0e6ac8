//! What a node tells its cluster: labels that pods are scheduled by, annotations that say why not, and events.
//!
//! Three requests of the Kubernetes API, with the pod's own service account: `kube`, with a client for everything,
//! would be most of the program.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::{Certificate, Client, Method};
use serde_json::{Map, Value, json};

use crate::{Error, Report};

/// Of all labels and annotations.
pub const PREFIX: &str = "run.lighter";
/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Events of things without a namespace are kept there.
const NAMESPACE: &str = "default";
/// An API server that is busy, or restarts with the node, is given so much time.
const TRIES: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(3);
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Characters that an event's message may have.
const MESSAGE: usize = 1024;

/// The API, and the node's name in it.
#[derive(Debug)]
pub struct Cluster {
    http: Client,
    base: String,
    node: String,
    /// The folder of the service account.
    account: PathBuf,
}

impl Cluster {
    /// The cluster that this process is a pod of, on the node that `NODE_NAME` says; none outside of one.
    ///
    /// # Errors
    /// The service account can't be read.
    pub fn of_pod() -> Result<Option<Self>, Error> {
        let (Ok(host), Ok(node)) = (env::var("KUBERNETES_SERVICE_HOST"), env::var("NODE_NAME")) else {
            return Ok(None);
        };
        let port = env::var("KUBERNETES_SERVICE_PORT").unwrap_or_else(|_| "443".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let failed = |why: String| Error::Kubernetes { what: "set a client up".to_owned(), why };
        let path = Path::new(ACCOUNT).join("ca.crt");
        let pem = fs::read(&path).map_err(|source| Error::Read { path, source })?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| failed(error.to_string()))?;
        let http = Client::builder().tls_certs_only(authorities).timeout(ANSWERS_WITHIN).no_proxy().build();
        let http = http.map_err(|error| failed(error.to_string()))?;
        Ok(Some(Self { http, base: format!("https://{host}:{port}"), node, account: ACCOUNT.into() }))
    }

    /// The node has these handlers, and pods for them may come.
    ///
    /// # Errors
    /// The API can't be reached or refuses.
    pub async fn ready(&self, report: &Report) -> Result<(), Error> {
        self.patch_node(ready(report)).await?;
        if report.changed {
            let version = report.version.as_deref().unwrap_or("unknown");
            let message = format!("Lighter {version} runs pods of {}", report.handlers.join(", "));
            self.event("Normal", "LighterInstalled", &message).await?;
        }
        Ok(())
    }

    /// The node could not be installed, or not be upgraded. Labels stay: a node that was put back still has its
    /// handlers.
    ///
    /// # Errors
    /// The API can't be reached or refuses.
    pub async fn failed(&self, error: &Error) -> Result<(), Error> {
        let message = error.to_string();
        let status = json!({ (key("status")): "failed", (key("message")): message });
        self.patch_node(json!({ "metadata": { "annotations": status } })).await?;
        self.event("Warning", "LighterFailed", &message).await
    }

    /// The node is about to have no handlers any more: no pods for them may come.
    ///
    /// # Errors
    /// The API can't be reached or refuses.
    pub async fn leaving(&self, handlers: &[String]) -> Result<(), Error> {
        self.patch_node(leaving(handlers)).await
    }

    /// The node has none any more. One that had nothing has nothing to tell.
    ///
    /// # Errors
    /// The API can't be reached or refuses.
    pub async fn removed(&self, report: &Report) -> Result<(), Error> {
        match report.changed {
            true => self.event("Normal", "LighterRemoved", "Lighter was taken away").await,
            false => Ok(()),
        }
    }

    async fn patch_node(&self, patch: Value) -> Result<(), Error> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let what = format!("label node {}", self.node);
        self.send(&what, Method::PATCH, &path, "application/merge-patch+json", &patch).await
    }

    async fn event(&self, kind: &str, reason: &str, message: &str) -> Result<(), Error> {
        let now = timestamp(SystemTime::now());
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{}.lighter-", self.node), "namespace": NAMESPACE },
            // As the kubelet names its node, so that `kubectl describe node` finds it.
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.node },
            "reason": reason,
            "message": message.chars().take(MESSAGE).collect::<String>(),
            "type": kind,
            "source": { "component": "lighter-node", "host": self.node },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
        self.send("record an event", Method::POST, &path, "application/json", &event).await
    }

    async fn send(&self, what: &str, method: Method, path: &str, kind: &str, body: &Value) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            let error = match self.try_send(method.clone(), path, kind, body).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if tries == TRIES || error.for_good {
                return Err(Error::Kubernetes { what: what.to_owned(), why: error.why });
            }
            tries += 1;
            tokio::time::sleep(BETWEEN).await;
        }
    }

    async fn try_send(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<(), Refusal> {
        let again = |why: String| Refusal { why, for_good: false };
        // It is renewed all the time.
        let token = fs::read_to_string(self.account.join("token")).map_err(|error| again(error.to_string()))?;
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token.trim());
        let request = request.header("content-type", kind).body(body.to_string());
        let answer = request.send().await.map_err(|error| again(error.to_string()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        let said = serde_json::from_str::<Value>(&text).ok();
        let said = said.as_ref().and_then(|said| said.get("message")?.as_str()).unwrap_or(text.trim());
        let said: String = said.chars().take(MESSAGE).collect();
        Err(Refusal { why: format!("{status}: {said}"), for_good: status.is_client_error() && status.as_u16() != 429 })
    }
}

struct Refusal {
    why: String,
    for_good: bool,
}

/// A label's or an annotation's key.
fn key(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

/// The patch of a node that has these handlers. Labels of those that are gone go with it.
fn ready(report: &Report) -> Value {
    // Under a name of its own as well.
    let own =
        report.handlers.first().into_iter().flat_map(|name| ENGINES.map(|known| known.replacen("lighter", name, 1)));
    let known = ENGINES.map(str::to_owned).into_iter().chain(own);
    let mut labels: Map<String, Value> = known.map(|name| (key(&name), Value::Null)).collect();
    labels.extend(report.handlers.iter().map(|handler| (key(handler), json!("true"))));
    let annotations = json!({
        (key("status")): "ready",
        (key("version")): report.version,
        (key("message")): if report.notes.is_empty() { Value::Null } else { json!(report.notes.join("; ")) },
    });
    json!({ "metadata": { "labels": labels, "annotations": annotations } })
}

fn leaving(handlers: &[String]) -> Value {
    let handlers = handlers.iter().map(String::as_str);
    let labels: Map<String, Value> = ENGINES.into_iter().chain(handlers).map(|name| (key(name), Value::Null)).collect();
    let annotations = json!({ (key("status")): null, (key("version")): null, (key("message")): null });
    json!({ "metadata": { "labels": labels, "annotations": annotations } })
}

/// Handlers that a node may have had, under the names that they have by default.
const ENGINES: [&str; 4] = ["lighter", "lighter-wasmtime", "lighter-wamr", "lighter-wasmedge"];

/// RFC 3339, in UTC and seconds.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years from March on, so that the odd day comes last: Howard Hinnant, "chrono-compatible low-level date
    // algorithms".
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::distribution::Distribution;

    /// Has a node tell an API server that gives these answers, and returns what it was asked: request lines and bodies.
    fn told(
        answers: &'static [&'static str],
        tell: impl AsyncFnOnce(&Cluster) -> Result<(), Error>,
    ) -> (Result<(), Error>, Vec<(String, Value)>) {
        let account = tempfile::tempdir().unwrap();
        fs::write(account.path().join("token"), "secret\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let answer = |answer: &&str| {
                let mut connection = BufReader::new(listener.accept().unwrap().0);
                let mut head = Vec::new();
                while head.last().is_none_or(|line: &String| line != "\r\n") {
                    let mut line = String::new();
                    connection.read_line(&mut line).unwrap();
                    head.push(line);
                }
                assert!(
                    head.iter().any(|line| line.eq_ignore_ascii_case("authorization: Bearer secret\r\n")),
                    "{head:?}"
                );
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.trim().parse().unwrap()];
                connection.read_exact(&mut body).unwrap();
                connection.get_mut().write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
                (head[0].trim().to_owned(), serde_json::from_slice(&body).unwrap())
            };
            answers.iter().map(answer).collect()
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().no_proxy().build().unwrap();
        let cluster = Cluster { http, base, node: "n1".to_owned(), account: account.path().to_owned() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(tell(&cluster));
        (outcome, server.join().unwrap())
    }

    const CREATED: &str = "201 Created\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    const OFTEN: &str = "429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const FORBIDDEN: &str =
        "403 Forbidden\r\ncontent-length: 28\r\nconnection: close\r\n\r\n{\"message\":\"patch: not you\"}";

    #[test]
    fn the_reason_is_an_annotation_and_an_event_of_the_node() {
        let error = Error::NoRestart;
        let (outcome, requests) = told(&[CREATED, OFTEN, CREATED], async |cluster| cluster.failed(&error).await);
        outcome.unwrap();
        let [(patch, node), _, (post, event)] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(patch, "PATCH /api/v1/nodes/n1 HTTP/1.1");
        let annotations = &node["metadata"]["annotations"];
        assert_eq!(annotations["run.lighter/status"], "failed");
        assert_eq!(annotations["run.lighter/message"], error.to_string());
        assert_eq!(post, "POST /api/v1/namespaces/default/events HTTP/1.1");
        assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("LighterFailed")));
        assert_eq!(event["message"], error.to_string());
        // By which `kubectl describe node` finds it.
        assert_eq!(
            event["involvedObject"],
            json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"}),
            "{event}"
        );
    }

    #[test]
    fn coming_and_going_are_events() {
        let lighter = ["lighter".to_owned()];
        let (outcome, requests) = told(&[CREATED], async |cluster| cluster.leaving(&lighter).await);
        outcome.unwrap();
        assert_eq!(requests[0].1["metadata"]["labels"]["run.lighter/lighter"], Value::Null);
        // Not before it is: pods may keep it from being so.
        let (outcome, requests) = told(&[CREATED], async |cluster| cluster.removed(&report(&["lighter"])).await);
        outcome.unwrap();
        assert_eq!(requests[0].1["reason"], "LighterRemoved");
        let nothing = Report { changed: false, ..report(&[]) };
        let (outcome, requests) = told(&[], async |cluster| cluster.removed(&nothing).await);
        assert!(outcome.is_ok() && requests.is_empty());
        let (outcome, _) = told(&[FORBIDDEN], async |cluster| cluster.leaving(&[]).await);
        let refused = "label node n1 by the Kubernetes API: 403 Forbidden: patch: not you";
        assert_eq!(outcome.unwrap_err().to_string(), refused);
    }

    #[test]
    fn times_are_as_kubernetes_writes_them() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ];
        for (seconds, expected) in table {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    fn report(handlers: &[&str]) -> Report {
        Report {
            ready: true,
            changed: true,
            distribution: Distribution::Containerd,
            version: Some("1-a".to_owned()),
            versions: Vec::new(),
            handlers: handlers.iter().map(|&name| name.to_owned()).collect(),
            files: Vec::new(),
            pods: 0,
            notes: Vec::new(),
        }
    }

    #[test]
    fn labels_come_and_go_with_their_handlers() {
        let patch = ready(&report(&["lighter", "lighter-wamr"]));
        let labels = &patch["metadata"]["labels"];
        assert_eq!(
            (&labels["run.lighter/lighter"], &labels["run.lighter/lighter-wamr"]),
            (&json!("true"), &json!("true"))
        );
        assert!(labels.as_object().is_some_and(|all| all.contains_key("run.lighter/lighter-wasmedge")));
        assert!(labels["run.lighter/lighter-wasmedge"].is_null());
        assert_eq!(patch["metadata"]["annotations"]["run.lighter/version"], json!("1-a"));
        let patch = ready(&report(&["mine", "mine-wamr"]));
        let labels = patch["metadata"]["labels"].as_object().unwrap();
        assert_eq!((&labels["run.lighter/mine-wamr"], &labels["run.lighter/lighter"]), (&json!("true"), &Value::Null));
        assert_eq!(labels.get("run.lighter/mine-wasmedge"), Some(&Value::Null));
        let patch = leaving(&["mine".to_owned()]);
        let gone = patch["metadata"]["labels"].as_object().map(|all| all.keys().cloned().collect::<Vec<_>>());
        assert!(gone.is_some_and(|gone| gone.len() == 5 && gone.contains(&"run.lighter/mine".to_owned())), "{patch}");
    }
}
