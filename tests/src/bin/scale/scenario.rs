//! What is simulated: how nodes come by code and images, for which load, on how many nodes.

use anyhow::Result;
use serde::Serialize;

use crate::{
    assumptions::Assumptions,
    burst::{Burst, Code, Compile, Outcome, Starting},
    cluster,
    compiler::Effort,
    figures::{Figures, Tasks},
    network::Distribution,
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
enum Start {
    Warm,
    Optimiser,
    Baseline,
    Code,
    Runc,
}

/// One row of the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    start: Start,
    distribution: Distribution,
}

const fn way(name: &'static str, start: Start, distribution: Distribution) -> Way {
    Way { name, start, distribution }
}

/// What Lighter does; what it would do with what is design only; what it would do without what it does; and runc.
pub(crate) const WAYS: [Way; 10] = [
    way("all there already", Start::Warm, Distribution::Registry),
    way("optimiser only", Start::Optimiser, Distribution::Registry),
    way("**baseline first**", Start::Baseline, Distribution::Registry),
    way("**baseline first**, mirror", Start::Baseline, Distribution::Mirror),
    way("**baseline first**, peers", Start::Baseline, Distribution::Peers),
    way("*code as well*", Start::Code, Distribution::Registry),
    way("*code as well*, mirror", Start::Code, Distribution::Mirror),
    way("*code as well*, peers", Start::Code, Distribution::Peers),
    way("runc", Start::Runc, Distribution::Registry),
    way("runc, peers", Start::Runc, Distribution::Peers),
];

/// One simulation's, in seconds, bytes and counts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) load: Load,
    pub(crate) way: &'static str,
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) last: f64,
    pub(crate) registry_bytes: f64,
    pub(crate) compile_cpu_seconds: f64,
    /// When all code was optimised.
    pub(crate) optimised_after: f64,
    pub(crate) api_writes: u64,
    /// Of all pods, for the plot.
    #[serde(skip)]
    pub(crate) ready: Vec<f64>,
}

impl Row {
    fn of(load: Load, way: &Way, nodes: usize, outcome: Outcome) -> Self {
        let Outcome { ready, registry_bytes, compiling, settled, writes } = outcome;
        let of = |hundredths: usize| ready.get((ready.len() * hundredths).div_ceil(100).saturating_sub(1));
        let of = |hundredths| of(hundredths).copied().unwrap_or_default();
        Self {
            load,
            way: way.name,
            nodes,
            pods: ready.len(),
            p50: of(50),
            p99: of(99),
            last: of(100),
            registry_bytes,
            compile_cpu_seconds: compiling,
            optimised_after: settled,
            api_writes: writes,
            ready,
        }
    }
}

/// Simulates all of them.
pub(crate) fn run(figures: &Figures, assumptions: &Assumptions) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for load in [Load::OneLarge, Load::Many] {
        for nodes in NODES {
            for way in &WAYS {
                let burst = burst(figures, assumptions, load, way, nodes)?;
                rows.push(Row::of(load, way, nodes, cluster::run(assumptions, &burst)));
            }
        }
    }
    Ok(rows)
}

/// A burst of a load's pods, started in a way.
fn burst(figures: &Figures, assumptions: &Assumptions, load: Load, way: &Way, nodes: usize) -> Result<Burst> {
    let (module, images) = match load {
        Load::OneLarge => (figures.largest()?, 1),
        Load::Many => (figures.usual()?, assumptions.modules),
    };
    let native = assumptions.native_image_megabytes * 1e6;
    let code = match way.start {
        Start::Warm => Code::Warm,
        Start::Optimiser => Code::Compile { first: compile(&module.optimised), then: None },
        Start::Baseline => Code::Compile { first: compile(&module.baseline), then: Some(compile(&module.optimised)) },
        Start::Code => Code::Fetch(module.optimised.code_bytes as f64),
        Start::Runc => Code::Unpack(native / (assumptions.unpack_megabytes_per_second * 1e6)),
    };
    let (tasks, image_bytes) =
        if way.start == Start::Runc { (&figures.runc, native) } else { (&figures.lighter, module.bytes as f64) };
    Ok(Burst { nodes, images, image_bytes, code, distribution: way.distribution, starting: starting(tasks) })
}

/// A compilation on any number of cores.
pub(crate) fn compile(effort: &Effort) -> Compile {
    let serial = effort.serial_seconds.min(effort.cpu_seconds);
    Compile { serial, parallel: effort.cpu_seconds - serial }
}

fn starting(tasks: &Tasks) -> Starting {
    Starting {
        cpu: tasks.cpu_seconds * tasks.starting,
        wait: tasks.wait_seconds * tasks.starting,
        spread: tasks.spread.clone(),
    }
}
