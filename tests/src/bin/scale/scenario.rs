//! What is simulated: how nodes come by code and images, for which load, on how many nodes.

use anyhow::Result;
use serde::Serialize;

use crate::{
    assumptions::Assumptions,
    cluster::{self, Burst, Code, Outcome},
    figures::Figures,
    network::Distribution::{self, Mirror, Peers, Registry},
};

/// Sizes of a cluster.
pub(crate) const NODES: [usize; 4] = [1, 10, 100, 1000];

/// What the pods run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// All the same large module.
    OneLarge,
    /// Each pod of a node another module of usual size.
    Many,
}

/// How a node comes by what it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Warm,
    Optimiser,
    Baseline,
    Code,
    Runc,
}

/// The rows of the tables: what Lighter does, what it would do with what is design only, what it would do without what it
/// does, and runc.
pub(crate) const WAYS: [(&str, Start, Distribution); 10] = [
    ("all there already", Start::Warm, Registry),
    ("optimiser only", Start::Optimiser, Registry),
    ("**baseline first**", Start::Baseline, Registry),
    ("**baseline first**, mirror", Start::Baseline, Mirror),
    ("**baseline first**, peers", Start::Baseline, Peers),
    ("*code as well*", Start::Code, Registry),
    ("*code as well*, mirror", Start::Code, Mirror),
    ("*code as well*, peers", Start::Code, Peers),
    ("runc", Start::Runc, Registry),
    ("runc, peers", Start::Runc, Peers),
];

/// One simulation's, in seconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) way: &'static str,
    pub(crate) nodes: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) last: f64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// Simulates all of them.
pub(crate) fn run(figures: &Figures, assumptions: &Assumptions) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for load in [Load::OneLarge, Load::Many] {
        for nodes in NODES {
            for (way, start, distribution) in WAYS {
                let burst = Burst { nodes, distribution, ..burst(figures, assumptions, load, start)? };
                let outcome = cluster::run(assumptions, &burst);
                let ready = &outcome.ready;
                let [p50, p99, last] = [50, 99, 100].map(|of| ready[(ready.len() * of).div_ceil(100) - 1]);
                rows.push(Row { load, way, nodes, p50, p99, last, outcome });
            }
        }
    }
    Ok(rows)
}

/// What a load's pods are and bring when they are started so, on one node.
fn burst<'a>(figures: &'a Figures, assumptions: &Assumptions, load: Load, start: Start) -> Result<Burst<'a>> {
    let (module, images) = match load {
        Load::OneLarge => (figures.largest()?, 1),
        Load::Many => (figures.usual()?, assumptions.modules),
    };
    let native = assumptions.native_image_megabytes * 1e6;
    let code = match start {
        Start::Warm => Code::Warm,
        Start::Optimiser => Code::Compile { first: &module.optimised, then: None },
        Start::Baseline => Code::Compile { first: &module.baseline, then: Some(&module.optimised) },
        Start::Code => Code::Fetch(module.optimised.code_bytes as f64),
        Start::Runc => Code::Unpack(native / (assumptions.unpack_megabytes_per_second * 1e6)),
    };
    let (tasks, image_bytes) = match start {
        Start::Runc => (&figures.runc, native),
        _ => (&figures.lighter, module.bytes as f64),
    };
    Ok(Burst { nodes: 1, images, image_bytes, code, distribution: Registry, tasks })
}
