//! Blobs on their way to the nodes: from a registry, through a mirror, or from node to node.

use std::collections::VecDeque;

use crate::{assumptions::Assumptions, simulation::Process};

/// Bytes below which a blob has arrived: times are whole nanoseconds.
const ARRIVED: f64 = 64.0;

/// Where nodes get blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// All from the registry.
    Registry,
    /// From a pull-through mirror, which gets each blob from the registry once.
    Mirror,
    /// From nodes that have the blob, whole; a few from the registry.
    Peers,
}

/// A blob, the node it is for, and who waits for it there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pull {
    pub(crate) node: usize,
    pub(crate) blob: usize,
    pub(crate) process: Process,
}

#[derive(Debug)]
struct Flow {
    pull: Pull,
    /// The node that sends it; `None` of the hub, which is the registry or the mirror.
    peer: Option<usize>,
    left: f64,
}

#[derive(Debug)]
struct Blob {
    bytes: f64,
    /// When the mirror has it, once somebody asked.
    mirrored: Option<f64>,
    /// Nodes that could send it, once for each upload that they have free.
    free: VecDeque<usize>,
    /// How often the registry may still send it to peers.
    seeds: usize,
    /// For a peer.
    waiting: VecDeque<Pull>,
}

/// All links, in bytes a second. A link is shared evenly by its flows; what one of them can't use because its other end
/// is slower is lost, which makes times too long rather than too short.
#[derive(Debug)]
pub(crate) struct Network {
    distribution: Distribution,
    node: f64,
    registry: f64,
    hub: f64,
    uploads: usize,
    blobs: Vec<Blob>,
    flows: Vec<Flow>,
    hub_sends: usize,
    /// Of each node.
    sends: Vec<usize>,
    receives: Vec<usize>,
    /// When the registry has sent to the mirror what was asked of it.
    mirror_free: f64,
    at: f64,
    /// That the registry sent.
    pub(crate) registry_bytes: f64,
}

impl Network {
    pub(crate) fn new(assumptions: &Assumptions, distribution: Distribution, nodes: usize, bytes: &[f64]) -> Self {
        let per_second = |gigabits: f64| gigabits * 1e9 / 8.0;
        let registry = per_second(assumptions.registry_gigabits);
        let blob = |bytes: &f64| Blob {
            bytes: *bytes,
            mirrored: None,
            free: VecDeque::new(),
            seeds: assumptions.peer_seeds,
            waiting: VecDeque::new(),
        };
        Self {
            distribution,
            node: per_second(assumptions.node_gigabits),
            registry,
            hub: if distribution == Distribution::Mirror { per_second(assumptions.mirror_gigabits) } else { registry },
            uploads: assumptions.peer_uploads,
            blobs: bytes.iter().map(blob).collect(),
            flows: Vec::new(),
            hub_sends: 0,
            sends: vec![0; nodes],
            receives: vec![0; nodes],
            mirror_free: 0.0,
            at: 0.0,
            registry_bytes: 0.0,
        }
    }

    /// Asks for a blob. Returns when to ask again, where the mirror has yet to get it.
    pub(crate) fn request(&mut self, now: f64, pull: Pull) -> Option<f64> {
        self.advance(now);
        let blob = &mut self.blobs[pull.blob];
        match self.distribution {
            Distribution::Registry => self.send(pull, None),
            Distribution::Mirror => {
                let mirrored = *blob.mirrored.get_or_insert_with(|| {
                    self.mirror_free = self.mirror_free.max(now) + blob.bytes / self.registry;
                    self.registry_bytes += blob.bytes;
                    self.mirror_free
                });
                if mirrored > now {
                    return Some(mirrored);
                }
                self.send(pull, None);
            }
            Distribution::Peers => {
                blob.waiting.push_back(pull);
                self.serve(pull.blob);
            }
        }
        None
    }

    /// What has arrived by now.
    pub(crate) fn arrived(&mut self, now: f64) -> Vec<Pull> {
        self.advance(now);
        let arrived: Vec<Flow> = self.flows.extract_if(.., |flow| flow.left <= ARRIVED).collect();
        for Flow { pull, peer, .. } in &arrived {
            self.receives[pull.node] -= 1;
            *self.sends_of(*peer) -= 1;
            self.blobs[pull.blob].free.extend(peer);
            if self.distribution == Distribution::Peers {
                self.blobs[pull.blob].free.extend([pull.node].repeat(self.uploads));
                self.serve(pull.blob);
            }
        }
        arrived.into_iter().map(|flow| flow.pull).collect()
    }

    /// When the next blob will have arrived if nothing changes.
    pub(crate) fn next(&self) -> Option<f64> {
        self.flows.iter().map(|flow| self.at + flow.left / self.rate(flow)).min_by(f64::total_cmp)
    }

    fn serve(&mut self, number: usize) {
        while let blob = &mut self.blobs[number]
            && blob.free.len() + blob.seeds > 0
            && let Some(pull) = blob.waiting.pop_front()
        {
            let peer = blob.free.pop_front();
            if peer.is_none() {
                blob.seeds -= 1;
            }
            self.send(pull, peer);
        }
    }

    fn send(&mut self, pull: Pull, peer: Option<usize>) {
        let left = self.blobs[pull.blob].bytes;
        self.receives[pull.node] += 1;
        *self.sends_of(peer) += 1;
        if peer.is_none() && self.distribution != Distribution::Mirror {
            self.registry_bytes += left;
        }
        self.flows.push(Flow { pull, peer, left });
    }

    fn sends_of(&mut self, peer: Option<usize>) -> &mut usize {
        peer.map_or(&mut self.hub_sends, |node| &mut self.sends[node])
    }

    fn rate(&self, flow: &Flow) -> f64 {
        let sender = match flow.peer {
            None => self.hub / self.hub_sends as f64,
            Some(node) => self.node / self.sends[node] as f64,
        };
        sender.min(self.node / self.receives[flow.pull.node] as f64)
    }

    fn advance(&mut self, now: f64) {
        let passed = now - self.at;
        self.at = now;
        if passed > 0.0 {
            let rates: Vec<f64> = self.flows.iter().map(|flow| self.rate(flow)).collect();
            self.flows.iter_mut().zip(rates).for_each(|(flow, rate)| flow.left -= rate * passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One blob of a second at a node's link, wanted by all nodes at once; the registry and the mirror are twice as fast.
    /// Returns when it arrived, and how often the registry sent it.
    fn spread(distribution: Distribution, nodes: usize) -> (Vec<f64>, f64) {
        let given = ["node-gigabits=8", "registry-gigabits=16", "mirror-gigabits=16", "peer-uploads=1", "peer-seeds=1"];
        let assumptions = Assumptions::with(&given.map(str::to_owned)).expect("assumptions");
        let mut network = Network::new(&assumptions, distribution, nodes, &[1e9]);
        let mut later: Vec<(f64, Pull)> = (0..nodes).map(|node| (0.0, Pull { node, blob: 0, process: node })).collect();
        let mut times = Vec::new();
        loop {
            let asked = later.iter().map(|(at, _)| *at).min_by(f64::total_cmp);
            let Some(now) = asked.into_iter().chain(network.next()).min_by(f64::total_cmp) else { break };
            let due: Vec<Pull> = later.extract_if(.., |(at, _)| *at <= now).map(|(_, pull)| pull).collect();
            due.into_iter().for_each(|pull| later.extend(network.request(now, pull).map(|at| (at, pull))));
            times.extend(network.arrived(now).iter().map(|_| (now * 100.0).round() / 100.0));
        }
        (times, network.registry_bytes / 1e9)
    }

    #[test]
    fn links_are_shared_and_peers_pass_on() {
        use Distribution::{Mirror, Peers, Registry};
        let table: [(Distribution, usize, &[f64], f64); 5] = [
            (Registry, 1, &[1.0], 1.0),
            (Registry, 4, &[2.0; 4], 4.0),
            (Mirror, 1, &[1.5], 1.0),
            (Mirror, 4, &[2.5; 4], 1.0),
            // From the registry; from the first; from both; the last ones from any.
            (Peers, 5, &[1.0, 2.0, 3.0, 3.0, 4.0], 1.0),
        ];
        for (distribution, nodes, times, copies) in table {
            assert_eq!(spread(distribution, nodes), (times.to_vec(), copies), "{distribution:?}, {nodes} nodes");
        }
    }
}
