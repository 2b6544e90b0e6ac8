//! A burst of pods on nodes that have none of what they run.
//!
//! A pod is created, bound to a node, taken on by its kubelet, gets its network, its image, its module's code, and is
//! started; it is ready when the API server has its status. Each step waits for what it shares with others.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
};

use serde::Serialize;

use crate::{
    assumptions::Assumptions,
    chance::Chance,
    compiler::Effort,
    figures::Tasks,
    network::{Distribution, Network, Pull},
    processor::{Processor, Work},
    simulation::{Gate, Once, Process, Simulation, pause},
};

/// What the API server writes for each pod that starts without a hitch: by whom, what, and when. Source: the events and
/// status updates of Kubernetes' controller manager, scheduler and kubelet.
pub(crate) const WRITES: [(&str, &str, Step); 9] = [
    ("controller manager", "the pod", Step::Created),
    ("scheduler", "its binding to a node", Step::Bound),
    ("scheduler", "event Scheduled", Step::Bound),
    ("kubelet", "status: container creating", Step::Seen),
    ("kubelet", "event Pulled", Step::Complete),
    ("kubelet", "event Created", Step::Started),
    ("kubelet", "event Started", Step::Started),
    ("kubelet", "status: running, ready", Step::Noticed),
    ("endpoint slice controller", "the Service's endpoints, where there is one", Step::Noticed),
];

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Created,
    Bound,
    /// The kubelet sees it.
    Seen,
    /// All is there that its start needs.
    Complete,
    Started,
    /// The kubelet sees that it runs.
    Noticed,
}

/// How a node comes by what a start maps.
#[derive(Clone, Debug)]
pub(crate) enum Code<'a> {
    /// It is there, and so is the image.
    Warm,
    /// It is in the image, which has to be unpacked: so many seconds of CPU time. A native program.
    Unpack(f64),
    /// Compiled by the first pod that needs it; in the background again, if there is a second way that is better.
    Compile { first: &'a Effort, then: Option<&'a Effort> },
    /// Fetched like the image: so many bytes.
    Fetch(f64),
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) struct Burst<'a> {
    pub(crate) nodes: usize,
    pub(crate) images: usize,
    pub(crate) image_bytes: f64,
    pub(crate) code: Code<'a>,
    pub(crate) distribution: Distribution,
    /// What starting a sandbox or a container takes.
    pub(crate) tasks: &'a Tasks,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    /// When each pod was ready, in seconds, in order.
    #[serde(skip)]
    pub(crate) ready: Vec<f64>,
    pub(crate) registry_bytes: f64,
    /// CPU seconds, over all nodes.
    pub(crate) compiling: f64,
    /// When the last compiler in the background was done; 0 without any.
    pub(crate) settled: f64,
    pub(crate) writes: u64,
}

/// Serves one after the other.
struct Server {
    every: f64,
    free: Cell<f64>,
}

impl Server {
    fn new(per_second: f64) -> Self {
        Self { every: 1.0 / per_second, free: Cell::default() }
    }

    /// When it is through with who comes now.
    fn take(&self, now: f64) -> f64 {
        self.free.set(self.free.get().max(now) + self.every);
        self.free.get()
    }
}

struct Node {
    processor: RefCell<Processor<Process>>,
    kubelet: Server,
    pulls: Gate,
    images: Vec<Once>,
    code: Vec<Once>,
    compilers: Gate,
    background: Gate,
}

struct Cluster<'a> {
    assumptions: &'a Assumptions,
    burst: &'a Burst<'a>,
    simulation: Simulation,
    chance: RefCell<Chance>,
    controller: Server,
    api: Server,
    scheduler: Server,
    network: RefCell<Network>,
    nodes: Vec<Node>,
    outcome: RefCell<Outcome>,
}

/// Runs a burst to its end.
pub(crate) fn run(assumptions: &Assumptions, burst: &Burst<'_>) -> Outcome {
    let once = || (0..burst.images).map(|_| Once::default()).collect();
    let node = |_| Node {
        processor: RefCell::new(Processor::new(assumptions.cores)),
        kubelet: Server::new(assumptions.kubelet_pods_per_second),
        pulls: Gate::new(assumptions.parallel_pulls),
        images: once(),
        code: once(),
        compilers: Gate::new(assumptions.compilers),
        background: Gate::new(1),
    };
    let code_bytes = if let Code::Fetch(bytes) = burst.code { bytes } else { 0.0 };
    let blobs = [vec![burst.image_bytes; burst.images], vec![code_bytes; burst.images]].concat();
    let cluster = Cluster {
        assumptions,
        burst,
        simulation: Simulation::default(),
        chance: RefCell::new(Chance::new(assumptions.seed)),
        controller: Server::new(assumptions.controller_pods_per_second),
        api: Server::new(assumptions.api_writes_per_second),
        scheduler: Server::new(assumptions.scheduler_pods_per_second),
        network: RefCell::new(Network::new(assumptions, burst.distribution, burst.nodes, &blobs)),
        nodes: (0..burst.nodes).map(node).collect(),
        outcome: RefCell::default(),
    };
    cluster.run();
    let mut outcome = cluster.outcome.into_inner();
    outcome.ready.sort_by(f64::total_cmp);
    let last = outcome.ready.last().copied().unwrap_or_default();
    outcome.writes += (burst.nodes as f64 * (last / assumptions.lease_seconds).ceil()) as u64;
    outcome.registry_bytes = cluster.network.into_inner().registry_bytes;
    outcome
}

impl Cluster<'_> {
    fn run(&self) {
        let nodes = 0..self.burst.nodes;
        // Each node's processor has the node's number as a process, and the network the one after them.
        let mut processes: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
        processes.extend(nodes.clone().map(|node| Box::pin(self.processor(node)) as _));
        processes.push(Box::pin(self.network()));
        let pods = nodes.end * self.assumptions.pods_per_node;
        processes.extend((0..pods).map(|pod| Box::pin(self.pod(pod)) as _));
        if let Code::Compile { then: Some(better), .. } = self.burst.code {
            let images = nodes.flat_map(|node| (0..self.burst.images).map(move |image| (node, image)));
            processes.extend(images.map(|(node, image)| Box::pin(self.improve(node, image, better)) as _));
        }
        self.simulation.run(processes);
    }

    async fn pod(&self, number: usize) {
        let Self { simulation, assumptions, burst, .. } = self;
        let (number, node) = (number / burst.nodes, number % burst.nodes);
        let (image, place) = (number % burst.images, &self.nodes[node]);
        simulation.until(self.controller.take(simulation.now())).await;
        simulation.until(self.write(Step::Created)).await;
        simulation.until(self.scheduler.take(simulation.now())).await;
        simulation.until(self.write(Step::Bound)).await;
        self.write(Step::Seen);
        let network = assumptions.network_wait_milliseconds / 1e3;
        simulation.until(place.kubelet.take(simulation.now()) + network + burst.tasks.starting_wait()).await;
        self.work(node, assumptions.network_cpu_milliseconds / 1e3 + self.starting_cpu(), 1.0, false).await;
        if !matches!(burst.code, Code::Warm) {
            place.images[image].make(simulation, place.pulls.pass(simulation, self.pull(node, image))).await;
            place.code[image].make(simulation, self.code(node, image)).await;
        }
        simulation.until(simulation.now() + burst.tasks.starting_wait()).await;
        self.write(Step::Complete);
        self.work(node, self.starting_cpu(), 1.0, false).await;
        self.write(Step::Started);
        let noticed = self.chance.borrow_mut().unit() * assumptions.relist_seconds;
        simulation.until(simulation.now() + noticed).await;
        let ready = self.write(Step::Noticed);
        self.outcome.borrow_mut().ready.push(ready);
    }

    /// Brings an image to a node.
    async fn pull(&self, node: usize, image: usize) {
        self.fetch(node, image).await;
        if let Code::Unpack(seconds) = self.burst.code {
            self.work(node, seconds, 1.0, false).await;
        }
    }

    /// Brings an image's code to a node, where it is not the image itself.
    async fn code(&self, node: usize, image: usize) {
        let compilers = &self.nodes[node].compilers;
        match self.burst.code {
            Code::Warm | Code::Unpack(_) => {}
            Code::Compile { first, .. } => compilers.pass(&self.simulation, self.compile(node, first, false)).await,
            Code::Fetch(_) => self.fetch(node, self.burst.images + image).await,
        }
    }

    /// Makes better code, once there is some.
    async fn improve(&self, node: usize, image: usize, better: &Effort) {
        let place = &self.nodes[node];
        place.code[image].wait(&self.simulation).await;
        place.background.pass(&self.simulation, self.compile(node, better, true)).await;
        self.outcome.borrow_mut().settled = self.simulation.now();
    }

    async fn compile(&self, node: usize, effort: &Effort, idle: bool) {
        self.outcome.borrow_mut().compiling += effort.cpu_seconds;
        self.work(node, effort.serial(), 1.0, idle).await;
        self.work(node, effort.cpu_seconds - effort.serial(), self.assumptions.cores as f64, idle).await;
    }

    async fn fetch(&self, node: usize, blob: usize) {
        let trips = f64::from(self.assumptions.pull_round_trips) * self.assumptions.round_trip_milliseconds / 1e3;
        let mut ask_at = Some(self.simulation.now() + trips);
        while let Some(at) = ask_at {
            self.simulation.until(at).await;
            let pull = Pull { node, blob, process: self.simulation.current() };
            ask_at = self.network.borrow_mut().request(self.simulation.now(), pull);
        }
        self.expect_arrival();
        pause().await;
    }

    async fn work(&self, node: usize, seconds: f64, width: f64, idle: bool) {
        let process = self.simulation.current();
        self.nodes[node].processor.borrow_mut().add(self.simulation.now(), process, Work { seconds, width, idle });
        self.expect_work(node);
        pause().await;
    }

    /// Lets go on whose work is done. It is woken for nothing where that changed meanwhile.
    async fn processor(&self, node: usize) {
        loop {
            pause().await;
            let done = self.nodes[node].processor.borrow_mut().done(self.simulation.now());
            if !done.is_empty() {
                self.expect_work(node);
            }
            done.into_iter().for_each(|process| self.simulation.wake(process));
        }
    }

    /// The same for what has arrived.
    async fn network(&self) {
        loop {
            pause().await;
            let arrived = self.network.borrow_mut().arrived(self.simulation.now());
            if !arrived.is_empty() {
                self.expect_arrival();
            }
            arrived.into_iter().for_each(|pull| self.simulation.wake(pull.process));
        }
    }

    fn expect_work(&self, node: usize) {
        if let Some(at) = self.nodes[node].processor.borrow().next() {
            self.simulation.wake_at(at, node);
        }
    }

    fn expect_arrival(&self) {
        if let Some(at) = self.network.borrow().next() {
            self.simulation.wake_at(at, self.nodes.len());
        }
    }

    fn starting_cpu(&self) -> f64 {
        self.burst.tasks.starting_cpu() * self.chance.borrow_mut().of(&self.burst.tasks.spread)
    }

    /// When the API server has written all of a step.
    fn write(&self, step: Step) -> f64 {
        let writes = WRITES.iter().filter(|(_, _, at)| *at == step);
        self.outcome.borrow_mut().writes += writes.clone().count() as u64;
        writes.map(|_| self.api.take(self.simulation.now())).last().unwrap_or(self.simulation.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPILE: Effort = Effort { cpu_seconds: 5.0, serial_seconds: 1.0, mebibytes: 0.0, code_bytes: 0 };

    fn simulate(nodes: usize, images: usize, code: Code<'_>, distribution: Distribution, others: &[&str]) -> Outcome {
        let spread = vec![0.5, 1.0, 1.5];
        let tasks = Tasks {
            cpu_seconds: 0.02,
            wait_seconds: 0.01,
            starting: 1.0,
            spread,
            per_second: [0.0; 3],
            mebibytes: 0.0,
        };
        let others: Vec<String> = others.iter().map(|other| (*other).to_owned()).collect();
        let assumptions = Assumptions::with(&others).expect("assumptions");
        run(&assumptions, &Burst { nodes, images, image_bytes: 1e7, code, distribution, tasks: &tasks })
    }

    #[test]
    fn a_module_is_pulled_and_compiled_once_a_node_and_every_pod_gets_ready() {
        let compile = || Code::Compile { first: &COMPILE, then: None };
        for (nodes, images, distribution, copies) in [
            (1, 1, Distribution::Registry, 1.0),
            (3, 1, Distribution::Registry, 3.0),
            (3, 10, Distribution::Registry, 30.0),
            (3, 10, Distribution::Mirror, 10.0),
            // The first node has it before the second one asks.
            (9, 1, Distribution::Peers, 1.0),
        ] {
            let outcome = simulate(nodes, images, compile(), distribution, &[]);
            let case = format!("{nodes} nodes, {images} images, {distribution:?}");
            assert_eq!(outcome.ready.len(), 10 * nodes, "{case}");
            assert_eq!(outcome.registry_bytes, copies * 1e7, "{case}");
            assert_eq!(outcome.compiling, (nodes * images) as f64 * 5.0, "{case}");
            let writes = (10 * nodes * WRITES.len()) as u64;
            assert!((writes + 1..writes + 100).contains(&outcome.writes), "{case}: {} writes", outcome.writes);
        }
    }

    #[test]
    fn what_waits_for_what() {
        let last = |code, others: &[&str]| {
            let outcome = simulate(2, 1, code, Distribution::Registry, others);
            outcome.ready.last().copied().unwrap_or_default()
        };
        let warm = last(Code::Warm, &[]);
        // A second on one core and four on all four.
        let compiled = last(Code::Compile { first: &COMPILE, then: None }, &[]);
        assert!((compiled - warm - 2.0).abs() < 1.2, "{warm} s without and {compiled} s with a compilation");
        let improved = last(Code::Compile { first: &COMPILE, then: Some(&COMPILE) }, &[]);
        assert!((improved - compiled).abs() < 0.3, "{improved} s: pods wait for the compiler in the background");
        let slow = last(Code::Fetch(1.25e9), &["registry-gigabits=1"]);
        assert!(slow > 20.0, "{slow} s for 2.5 GB at 1 Gb/s");
        let both =
            simulate(1, 2, Code::Compile { first: &COMPILE, then: None }, Distribution::Registry, &["compilers=1"]);
        let both = both.ready.last().copied().unwrap_or_default();
        assert!(both > compiled + 1.0, "{compiled} s for a compilation, {both} s for two that wait for each other");
        let created = last(Code::Warm, &["controller-pods-per-second=2"]);
        assert!((10.0..12.5).contains(&created), "{created} s for 20 pods at 2 a second");
    }

    #[test]
    fn chance_is_the_seeds() {
        let ready = |seed| simulate(2, 2, Code::Unpack(1.0), Distribution::Peers, &[seed]).ready;
        assert_eq!(ready("seed=1"), ready("seed=1"));
        assert_ne!(ready("seed=1"), ready("seed=2"));
    }
}
