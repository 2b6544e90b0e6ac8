//! A burst of pods: what happens to each, on what terms, and what came of it.

use crate::network::Distribution;

/// What the API server writes for each pod that starts without a hitch: by whom, what, and when. Source: the events and
/// status updates of Kubernetes' controller manager, scheduler and kubelet.
pub(crate) const WRITES: [(&str, &str, Step); 9] = [
    ("controller manager", "the pod", Step::Create),
    ("scheduler", "its binding to a node", Step::Bind),
    ("scheduler", "event Scheduled", Step::Bind),
    ("kubelet", "status: container creating", Step::Seen),
    ("kubelet", "event Pulled", Step::Start),
    ("kubelet", "event Created", Step::Started),
    ("kubelet", "event Started", Step::Started),
    ("kubelet", "status: running, ready", Step::Noticed),
    ("endpoint slice controller", "the Service's endpoints, where there is one", Step::Noticed),
];

/// What has come for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Create,
    Schedule,
    Bind,
    /// The kubelet sees it.
    Seen,
    /// Its network can be made.
    Sandbox,
    /// Its image is to be there.
    Image,
    /// Its code is to be there.
    Code,
    Start,
    Started,
    /// The kubelet has seen that it runs.
    Noticed,
}

/// How a node comes by what a start maps.
#[derive(Clone, Debug)]
pub(crate) enum Code {
    /// It is there, and so is the image.
    Warm,
    /// It is in the image, which has to be unpacked: so many seconds of CPU time. A native program.
    Unpack(f64),
    /// Compiled by the first pod that needs it; in the background again, if there is a second way that is better.
    Compile { first: Compile, then: Option<Compile> },
    /// Fetched like the image: so many bytes.
    Fetch(f64),
}

/// A compilation, in seconds of CPU time: what one thread works on, and then what all cores can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compile {
    pub(crate) serial: f64,
    pub(crate) parallel: f64,
}

/// What starting a sandbox or a container takes.
#[derive(Clone, Debug)]
pub(crate) struct Starting {
    pub(crate) cpu: f64,
    pub(crate) wait: f64,
    /// Deciles, of which the mean is about 1.
    pub(crate) spread: Vec<f64>,
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) struct Burst {
    pub(crate) nodes: usize,
    pub(crate) images: usize,
    pub(crate) image_bytes: f64,
    pub(crate) code: Code,
    pub(crate) distribution: Distribution,
    pub(crate) starting: Starting,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// When each pod was ready, in seconds, in order.
    pub(crate) ready: Vec<f64>,
    pub(crate) registry_bytes: f64,
    /// CPU seconds, over all nodes.
    pub(crate) compiling: f64,
    /// When the last compiler in the background was done; 0 without any.
    pub(crate) settled: f64,
    pub(crate) writes: u64,
}
