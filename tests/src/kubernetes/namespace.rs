//! A namespace that belongs to one test, and what the test asks of it.

use std::{
    ffi::OsStr,
    sync::{
        RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Cluster;
use crate::Cmd;

/// How long anything that is waited for may take to come: with the back-off of some restarts, on a machine with much else to do.
const COMES_WITHIN: Duration = Duration::from_secs(240);

/// How often the cluster is asked.
const EVERY: Duration = Duration::from_millis(100);

/// A namespace, deleted when dropped.
pub struct Namespace {
    cluster: &'static Cluster,
    name: String,
    _place: Place,
}

/// Whether other tests run at the same time.
#[expect(dead_code, reason = "held, not looked at")]
pub(super) enum Place {
    Among(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Namespace {
    #[track_caller]
    pub(super) fn create(cluster: &'static Cluster, name: &str, place: Place) -> Namespace {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        cluster.kubectl(&["create", "namespace", &name]).run().ok();
        let namespace = Namespace { cluster, name, _place: place };
        // Pods are refused before it is there.
        namespace.wait("serviceaccount", "default", "to be there", |account| !account.is_null());
        namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is of.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// `kubectl` in this namespace.
    pub fn kubectl(&self, arguments: &[impl AsRef<OsStr>]) -> Cmd {
        let namespace = ["--namespace", &self.name].map(OsStr::new);
        self.cluster.kubectl(&namespace.into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect::<Vec<_>>())
    }

    /// Applies these objects, which name no namespace.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl(&["apply", "-f", "-"]).stdin(list.to_string()).run().ok();
    }

    /// An object as the API server has it, or null.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let found = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]).run().ok();
        parse(&found.stdout)
    }

    /// All objects of a kind that have these labels.
    #[track_caller]
    pub fn list(&self, kind: &str, labels: &str) -> Vec<Value> {
        let found = self.kubectl(&["get", kind, "--selector", labels, "-o", "json"]).run().ok();
        parse(&found.stdout)["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a condition holds for an object, null where there is none, and returns it.
    #[track_caller]
    pub fn wait(&self, kind: &str, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + COMES_WITHIN;
        loop {
            let object = self.get(kind, name);
            if condition(&object) {
                return object;
            }
            if Instant::now() > deadline {
                let described = self.kubectl(&["describe", kind, name]).run();
                let pods = self.kubectl(&["describe", "pods"]).run();
                panic!("waited {COMES_WITHIN:?} for {kind} {name} {what}\n{object:#}\n{described}\n{pods}");
            }
            thread::sleep(EVERY);
        }
    }

    /// Asks again and again until there is an answer, and returns it.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        self.comes(check).unwrap_or_else(|| {
            let pods = self.kubectl(&["describe", "pods"]).run();
            panic!("waited {COMES_WITHIN:?} for {what}\n{pods}");
        })
    }

    /// Asks again and again until there is an answer. None where there is none in time.
    pub fn comes<T>(&self, mut check: impl FnMut() -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + COMES_WITHIN;
        loop {
            let answer = check();
            if answer.is_some() || Instant::now() > deadline {
                return answer;
            }
            thread::sleep(EVERY);
        }
    }

    /// What a pod answers to a GET that the API server passes on; empty where it doesn't.
    #[track_caller]
    pub fn proxied(&self, pod: &str, port: u16, target: &str) -> String {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{target}", self.name);
        self.kubectl(&["get", "--raw", &path]).run().stdout
    }

    /// Waits until a pod is in this phase, and returns it.
    #[track_caller]
    pub fn wait_phase(&self, pod: &str, phase: &str) -> Value {
        self.wait("pod", pod, &format!("to be {phase}"), |pod| pod["status"]["phase"] == phase)
    }

    /// Waits until a pod is ready, and returns it.
    #[track_caller]
    pub fn wait_ready(&self, pod: &str) -> Value {
        self.wait("pod", pod, "to be ready", is_ready)
    }

    /// Waits until so many replicas of a deployment are ready, of its newest kind, and no others are left.
    #[track_caller]
    pub fn wait_rolled_out(&self, deployment: &str) {
        let command = ["rollout", "status", &format!("deployment/{deployment}"), "--timeout=240s"].map(str::to_owned);
        let rolled_out = self.kubectl(&command).timeout(Duration::from_secs(250)).run();
        if rolled_out.status != 0 {
            let pods = self.kubectl(&["describe", "pods"]).run();
            panic!("{rolled_out}\n{pods}");
        }
    }

    /// A container's log.
    #[track_caller]
    pub fn logs(&self, pod: &str, container: &str) -> String {
        self.kubectl(&["logs", pod, "-c", container]).run().ok().stdout
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It goes in its own time.
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]).try_run();
    }
}

/// Whether a pod's condition `Ready` is true.
pub(super) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Null for nothing.
#[track_caller]
fn parse(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|error| panic!("kubectl's answer is no JSON: {error}\n{text}"))
}
