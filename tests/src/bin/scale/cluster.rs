//! A burst of pods on nodes that have none of what they run: a discrete-event simulation, the same for the same seed.
//!
//! A pod is created, bound to a node, taken on by its kubelet, gets its network, its image, its module's code, and is
//! started; it is ready when the API server has its status. Each step waits for what it shares with others.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    mem,
    time::Duration,
};

use crate::{
    assumptions::Assumptions,
    burst::{Burst, Code, Compile, Outcome, Step, WRITES},
    chance::Chance,
    network::{Network, Pull},
    processor::{Processor, Work},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Pod(usize, Step),
    /// A node asks for a blob.
    Ask(Pull),
    /// On a node, work is done, unless that changed meanwhile.
    Done(usize),
    Arrived,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    /// Brings a pod to its next step.
    Pod(usize, Step),
    Unpack(usize),
    /// In the second of two phases, or before it.
    Compile {
        image: usize,
        idle: bool,
        last: bool,
    },
}

/// Serves one after the other.
#[derive(Debug)]
struct Server {
    every: f64,
    free: f64,
    served: u64,
}

impl Server {
    fn new(per_second: f64) -> Self {
        Self { every: 1.0 / per_second, free: 0.0, served: 0 }
    }

    /// When it is through with who comes now.
    fn take(&mut self, now: f64) -> f64 {
        self.free = self.free.max(now) + self.every;
        self.served += 1;
        self.free
    }
}

/// An image, or its code, on a node.
#[derive(Clone, Debug)]
enum Place {
    Absent,
    /// These pods wait for it.
    Coming(Vec<usize>),
    Here,
}

#[derive(Debug)]
struct Node {
    processor: Processor<Task>,
    kubelet: Server,
    pulling: usize,
    pulls: VecDeque<usize>,
    images: Vec<Place>,
    code: Vec<Place>,
    /// What waits for its turn in the background: one at a time.
    background: VecDeque<usize>,
    improving: bool,
}

struct Cluster<'a> {
    assumptions: &'a Assumptions,
    burst: &'a Burst,
    now: f64,
    queue: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    queued: u64,
    chance: Chance,
    api: Server,
    scheduler: Server,
    network: Network,
    nodes: Vec<Node>,
    ready: Vec<f64>,
    settled: f64,
    compiling: f64,
}

/// Runs a burst to its end.
pub(crate) fn run(assumptions: &Assumptions, burst: &Burst) -> Outcome {
    let there = if matches!(burst.code, Code::Warm) { Place::Here } else { Place::Absent };
    let node = || Node {
        processor: Processor::new(assumptions.cores),
        kubelet: Server::new(assumptions.kubelet_pods_per_second),
        pulling: 0,
        pulls: VecDeque::new(),
        images: vec![there.clone(); burst.images],
        code: vec![there.clone(); burst.images],
        background: VecDeque::new(),
        improving: false,
    };
    let code_bytes = if let Code::Fetch(bytes) = burst.code { bytes } else { 0.0 };
    let blobs = [vec![burst.image_bytes; burst.images], vec![code_bytes; burst.images]].concat();
    let mut cluster = Cluster {
        assumptions,
        burst,
        now: 0.0,
        queue: BinaryHeap::new(),
        queued: 0,
        chance: Chance::new(assumptions.seed),
        api: Server::new(assumptions.api_writes_per_second),
        scheduler: Server::new(assumptions.scheduler_pods_per_second),
        network: Network::new(assumptions, burst.distribution, burst.nodes, &blobs),
        nodes: (0..burst.nodes).map(|_| node()).collect(),
        ready: Vec::new(),
        settled: 0.0,
        compiling: 0.0,
    };
    let mut controller = Server::new(assumptions.controller_pods_per_second);
    for pod in 0..burst.nodes * assumptions.pods_per_node {
        let at = controller.take(0.0);
        cluster.later(at, Event::Pod(pod, Step::Create));
    }
    while let Some(Reverse((at, _, event))) = cluster.queue.pop() {
        cluster.now = at.as_secs_f64();
        cluster.happen(event);
    }
    cluster.outcome()
}

impl Cluster<'_> {
    fn later(&mut self, at: f64, event: Event) {
        self.queued += 1;
        // Rounded up: what an event waits for must be over by then.
        self.queue.push(Reverse((Duration::from_secs_f64(at) + Duration::from_nanos(1), self.queued, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pod(pod, step) => self.step(pod, step),
            Event::Ask(pull) => {
                match self.network.request(self.now, pull) {
                    Some(at) => self.later(at, Event::Ask(pull)),
                    None => self.expect_arrival(),
                };
            }
            Event::Arrived => {
                let arrived = self.network.arrived(self.now);
                arrived.iter().for_each(|pull| self.arrive(*pull));
                if !arrived.is_empty() {
                    self.expect_arrival();
                }
            }
            Event::Done(node) => {
                let done = self.nodes[node].processor.done(self.now);
                let any = !done.is_empty();
                done.into_iter().for_each(|task| self.finish(node, task));
                if any {
                    self.expect_work(node);
                }
            }
        }
    }

    fn step(&mut self, pod: usize, step: Step) {
        let (node, image) = (self.node_of(pod), self.image_of(pod));
        let mut written = self.now;
        for _ in WRITES.iter().filter(|(_, _, at)| *at == step) {
            written = self.api.take(self.now);
        }
        let network = self.assumptions.network_wait_milliseconds / 1e3;
        match step {
            Step::Create => self.later(written, Event::Pod(pod, Step::Schedule)),
            Step::Schedule => {
                let at = self.scheduler.take(self.now);
                self.later(at, Event::Pod(pod, Step::Bind));
            }
            Step::Bind => self.later(written, Event::Pod(pod, Step::Seen)),
            Step::Seen => {
                let at = self.nodes[node].kubelet.take(self.now);
                self.later(at + network + self.burst.starting.wait, Event::Pod(pod, Step::Sandbox));
            }
            Step::Sandbox => {
                let seconds = self.assumptions.network_cpu_milliseconds / 1e3 + self.starting_cpu();
                self.work(node, Task::Pod(pod, Step::Image), Work { seconds, width: 1.0, idle: false });
            }
            Step::Image => match &mut self.nodes[node].images[image] {
                Place::Here => self.step(pod, Step::Code),
                Place::Coming(waiting) => waiting.push(pod),
                absent => {
                    *absent = Place::Coming(vec![pod]);
                    self.nodes[node].pulls.push_back(image);
                    self.pull(node);
                }
            },
            Step::Code => match &mut self.nodes[node].code[image] {
                Place::Here => self.later(self.now + self.burst.starting.wait, Event::Pod(pod, Step::Start)),
                Place::Coming(waiting) => waiting.push(pod),
                absent => {
                    *absent = Place::Coming(vec![pod]);
                    self.make_code(node, image);
                }
            },
            Step::Start => {
                let seconds = self.starting_cpu();
                self.work(node, Task::Pod(pod, Step::Started), Work { seconds, width: 1.0, idle: false });
            }
            Step::Started => {
                let at = self.now + self.chance.unit() * self.assumptions.relist_seconds;
                self.later(at, Event::Pod(pod, Step::Noticed));
            }
            Step::Noticed => self.ready.push(written),
        }
    }

    fn node_of(&self, pod: usize) -> usize {
        pod % self.burst.nodes
    }

    fn image_of(&self, pod: usize) -> usize {
        pod / self.burst.nodes % self.burst.images
    }

    fn starting_cpu(&mut self) -> f64 {
        self.burst.starting.cpu * self.chance.of(&self.burst.starting.spread)
    }

    /// Begins pulls of images, as many as a kubelet does at once.
    fn pull(&mut self, node: usize) {
        while self.nodes[node].pulling < self.assumptions.parallel_pulls {
            let Some(blob) = self.nodes[node].pulls.pop_front() else { return };
            self.nodes[node].pulling += 1;
            self.ask(Pull { node, blob });
        }
    }

    fn ask(&mut self, pull: Pull) {
        let trips = f64::from(self.assumptions.pull_round_trips) * self.assumptions.round_trip_milliseconds / 1e3;
        self.later(self.now + trips, Event::Ask(pull));
    }

    fn arrive(&mut self, Pull { node, blob }: Pull) {
        if blob >= self.burst.images {
            return self.code_is_here(node, blob - self.burst.images);
        }
        match self.burst.code {
            Code::Unpack(seconds) => self.work(node, Task::Unpack(blob), Work { seconds, width: 1.0, idle: false }),
            Code::Warm | Code::Compile { .. } | Code::Fetch(_) => self.image_is_here(node, blob),
        }
    }

    fn image_is_here(&mut self, node: usize, image: usize) {
        self.nodes[node].pulling -= 1;
        self.pull(node);
        if let Place::Coming(pods) = mem::replace(&mut self.nodes[node].images[image], Place::Here) {
            pods.into_iter().for_each(|pod| self.step(pod, Step::Code));
        }
    }

    fn make_code(&mut self, node: usize, image: usize) {
        match self.burst.code {
            Code::Warm | Code::Unpack(_) => self.code_is_here(node, image),
            Code::Compile { first, .. } => self.compile(node, image, first, false),
            Code::Fetch(_) => self.ask(Pull { node, blob: self.burst.images + image }),
        }
    }

    fn code_is_here(&mut self, node: usize, image: usize) {
        if let Place::Coming(pods) = mem::replace(&mut self.nodes[node].code[image], Place::Here) {
            pods.into_iter().for_each(|pod| self.step(pod, Step::Code));
        }
    }

    fn compile(&mut self, node: usize, image: usize, compile: Compile, idle: bool) {
        self.compiling += compile.serial + compile.parallel;
        let work = Work { seconds: compile.serial, width: 1.0, idle };
        self.work(node, Task::Compile { image, idle, last: false }, work);
    }

    fn improve(&mut self, node: usize) {
        if let Code::Compile { then: Some(better), .. } = self.burst.code
            && !self.nodes[node].improving
            && let Some(image) = self.nodes[node].background.pop_front()
        {
            self.nodes[node].improving = true;
            self.compile(node, image, better, true);
        }
    }

    fn work(&mut self, node: usize, task: Task, work: Work) {
        self.nodes[node].processor.add(self.now, task, work);
        self.expect_work(node);
    }

    fn finish(&mut self, node: usize, task: Task) {
        match task {
            Task::Pod(pod, step) => self.step(pod, step),
            Task::Unpack(image) => self.image_is_here(node, image),
            Task::Compile { image, idle, last: false } => {
                let Code::Compile { first, then } = &self.burst.code else { return };
                let seconds = if idle { then.map_or(0.0, |then| then.parallel) } else { first.parallel };
                let width = self.assumptions.cores as f64;
                self.work(node, Task::Compile { image, idle, last: true }, Work { seconds, width, idle });
            }
            Task::Compile { idle: true, .. } => {
                self.settled = self.now;
                self.nodes[node].improving = false;
                self.improve(node);
            }
            Task::Compile { image, .. } => {
                self.code_is_here(node, image);
                self.nodes[node].background.push_back(image);
                self.improve(node);
            }
        }
    }

    fn expect_work(&mut self, node: usize) {
        if let Some(at) = self.nodes[node].processor.next() {
            self.later(at, Event::Done(node));
        }
    }

    fn expect_arrival(&mut self) {
        if let Some(at) = self.network.next() {
            self.later(at, Event::Arrived);
        }
    }

    fn outcome(mut self) -> Outcome {
        self.ready.sort_by(f64::total_cmp);
        let last = self.ready.last().copied().unwrap_or_default();
        let leases = self.burst.nodes as f64 * (last / self.assumptions.lease_seconds).ceil();
        Outcome {
            ready: self.ready,
            registry_bytes: self.network.registry_bytes,
            compiling: self.compiling,
            settled: self.settled,
            writes: self.api.served + leases as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{burst::Starting, network::Distribution};

    const COMPILE: Compile = Compile { serial: 1.0, parallel: 4.0 };

    fn burst(nodes: usize, images: usize, code: Code, distribution: Distribution) -> Burst {
        let starting = Starting { cpu: 0.02, wait: 0.01, spread: vec![0.5, 1.0, 1.5] };
        Burst { nodes, images, image_bytes: 1e7, code, distribution, starting }
    }

    fn simulate(burst: &Burst, others: &[&str]) -> Outcome {
        let others: Vec<String> = others.iter().map(|other| (*other).to_owned()).collect();
        run(&Assumptions::with(&others).expect("assumptions"), burst)
    }

    #[test]
    fn a_module_is_pulled_and_compiled_once_a_node_and_every_pod_gets_ready() {
        let compile = || Code::Compile { first: COMPILE, then: None };
        for (nodes, images, distribution, copies) in [
            (1, 1, Distribution::Registry, 1.0),
            (3, 1, Distribution::Registry, 3.0),
            (3, 10, Distribution::Registry, 30.0),
            (3, 10, Distribution::Mirror, 10.0),
            // The first node has it before the second one asks.
            (9, 1, Distribution::Peers, 1.0),
        ] {
            let outcome = simulate(&burst(nodes, images, compile(), distribution), &[]);
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
            let outcome = simulate(&burst(2, 1, code, Distribution::Registry), others);
            outcome.ready.last().copied().unwrap_or_default()
        };
        let warm = last(Code::Warm, &[]);
        // A second on one core and four on all four.
        let compiled = last(Code::Compile { first: COMPILE, then: None }, &[]);
        assert!((compiled - warm - 2.0).abs() < 1.2, "{warm} s without and {compiled} s with a compilation");
        let improved = last(Code::Compile { first: COMPILE, then: Some(COMPILE) }, &[]);
        assert!((improved - compiled).abs() < 0.3, "{improved} s: pods wait for the compiler in the background");
        let slow = last(Code::Fetch(1.25e9), &["registry-gigabits=1"]);
        assert!(slow > 20.0, "{slow} s for 2.5 GB at 1 Gb/s");
        let created = last(Code::Warm, &["controller-pods-per-second=2"]);
        assert!((10.0..12.5).contains(&created), "{created} s for 20 pods at 2 a second");
    }

    #[test]
    fn chance_is_the_seeds() {
        let ready = |seed| simulate(&burst(2, 2, Code::Unpack(1.0), Distribution::Peers), &[seed]).ready;
        assert_eq!(ready("seed=1"), ready("seed=1"));
        assert_ne!(ready("seed=1"), ready("seed=2"));
    }
}
