//! The API `metrics.k8s.io`, which `kubectl top` and autoscalers ask, made of the kubelet's figures of its containers
//! (`/stats/summary`), as a metrics server makes it: a thread of the test's, behind the API server.
//!
//! Source: k8s.io/metrics/pkg/apis/metrics/v1beta1.

use std::{convert::Infallible, io, net::TcpListener, sync::Arc, thread};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::node::{self, ADDRESS, FOLDER, KUBECONFIG};
use crate::Bed;

/// Where it is in the API.
pub(super) const PATH: &str = "/apis/metrics.k8s.io/v1beta1";

/// Its port on the node's address.
const PORT: u16 = 16444;

/// How long the kubelet takes from one measurement to the next.
const WINDOW: &str = "10s";

/// Serves it, and waits until the API server does.
///
/// # Errors
/// When it can't be made.
pub(super) fn start(bed: &'static Bed) -> Result<()> {
    // The API server's own certificate will do: it is not looked at.
    let [certificate, key] = ["crt", "key"].map(|kind| bed.path(format!("{FOLDER}/certs/apiserver.{kind}")));
    let chain = vec![CertificateDer::from_pem_file(&certificate).context("read the API server's certificate")?];
    let key = PrivateKeyDer::from_pem_file(&key).context("read the API server's key")?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .context("configure TLS")?;
    let listener = bed.in_network(|| TcpListener::bind((ADDRESS, PORT))).context("listen in the bed")?;
    listener.set_nonblocking(true).context("listen in the bed")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("start an event loop")?;
    thread::spawn(move || runtime.block_on(serve(bed, listener, TlsAcceptor::from(Arc::new(config)))));
    kubectl(bed, &["apply", "-f", "-"], &registration().to_string())?;
    kubectl(bed, &["wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=50s"], "")?;
    Ok(())
}

/// What leads the API server here: a Service, with an address that is no pod's.
fn registration() -> Value {
    let name = json!({"name": "metrics", "namespace": "kube-system"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": {"ports": [{"port": 443, "targetPort": PORT}]}},
        {
            "apiVersion": "v1", "kind": "Endpoints", "metadata": name,
            "subsets": [{"addresses": [{"ip": ADDRESS}], "ports": [{"port": PORT}]}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true, "service": name,
            },
        },
    ]})
}

async fn serve(bed: &'static Bed, listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // An error is the connection's end, which is what the client sees.
            if let Ok(stream) = acceptor.accept(stream).await {
                let answer = service_fn(move |request| respond(bed, request));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            }
        });
    }
}

async fn respond(bed: &'static Bed, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let answered = tokio::task::spawn_blocking(move || answer(bed, &path, &query)).await;
    let (status, body) = match answered.map_err(Into::into).flatten() {
        Ok(body) => (200, body),
        Err(error) => (
            404,
            json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
                "message": format!("{error:#}"),
            }),
        ),
    };
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn answer(bed: &Bed, path: &str, query: &str) -> Result<Value> {
    let Some(asked) = path.strip_prefix(PATH) else { bail!("there is no {path}") };
    let asked: Vec<&str> = asked.split('/').filter(|part| !part.is_empty()).collect();
    let only = |mut items: Vec<Value>| items.pop().context("nothing is known of it yet");
    match asked[..] {
        [] => Ok(resources()),
        ["nodes"] => Ok(list("NodeMetricsList", vec![of_node(bed)?])),
        ["nodes", _] => of_node(bed),
        ["pods"] => Ok(list("PodMetricsList", of_pods(bed, &format!("/api/v1/pods?{query}"))?)),
        ["namespaces", namespace, "pods"] => {
            let pods = of_pods(bed, &format!("/api/v1/namespaces/{namespace}/pods?{query}"))?;
            Ok(list("PodMetricsList", pods))
        }
        ["namespaces", namespace, "pods", name] => {
            only(of_pods(bed, &format!("/api/v1/namespaces/{namespace}/pods?fieldSelector=metadata.name={name}"))?)
        }
        _ => bail!("there is no {path}"),
    }
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({
        "apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "metrics.k8s.io/v1beta1",
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}

fn list(kind: &str, items: Vec<Value>) -> Value {
    json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": kind, "metadata": {}, "items": items})
}

fn of_node(bed: &Bed) -> Result<Value> {
    let node = summary(bed)?["node"].take();
    Ok(json!({
        "apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "metadata": {"name": node["nodeName"]},
        "timestamp": node["cpu"]["time"], "window": WINDOW, "usage": usage(&node).context("the node is not measured yet")?,
    }))
}

/// Of the pods that the API server lists there; those that are not measured yet are left out.
fn of_pods(bed: &Bed, listed: &str) -> Result<Vec<Value>> {
    let (listed, summary) = (get(bed, listed)?, summary(bed)?);
    let empty = Vec::new();
    let measured = |pod: &Value| {
        let name = &pod["metadata"]["name"];
        let namespace = &pod["metadata"]["namespace"];
        let mut pods = summary["pods"].as_array().unwrap_or(&empty).iter();
        let stats = pods.find(|of| of["podRef"]["name"] == *name && of["podRef"]["namespace"] == *namespace)?;
        let containers = stats["containers"].as_array()?.iter();
        let containers = containers.map(|of| Some(json!({"name": of["name"], "usage": usage(of)?})));
        Some(json!({
            "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": {"name": name, "namespace": namespace, "labels": pod["metadata"]["labels"]},
            "timestamp": stats["containers"][0]["cpu"]["time"], "window": WINDOW,
            "containers": containers.collect::<Option<Vec<_>>>()?,
        }))
    };
    Ok(listed["items"].as_array().unwrap_or(&empty).iter().filter_map(measured).collect())
}

fn usage(stats: &Value) -> Option<Value> {
    let cpu = stats["cpu"]["usageNanoCores"].as_u64()?;
    let memory = stats["memory"]["workingSetBytes"].as_u64()?;
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{memory}")}))
}

fn summary(bed: &Bed) -> Result<Value> {
    get(bed, &format!("/api/v1/nodes/{}/proxy/stats/summary", node::name(bed)))
}

fn get(bed: &Bed, path: &str) -> Result<Value> {
    serde_json::from_str(&kubectl(bed, &["get", "--raw", path], "")?).with_context(|| format!("parse {path}"))
}

fn kubectl(bed: &Bed, arguments: &[&str], stdin: &str) -> Result<String> {
    let kubeconfig = format!("KUBECONFIG={KUBECONFIG}");
    let output = bed.cmd(&[&["env", &kubeconfig, "kubectl"], arguments].concat()).stdin(stdin).try_run()?;
    ensure!(output.status == 0, "{output}");
    Ok(output.stdout)
}
