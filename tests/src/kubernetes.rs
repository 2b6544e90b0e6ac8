//! A Kubernetes to test on: one node with a control plane of its own in a bed, or any cluster that `KUBECONFIG` names.
//!
//! Debian's last source package of the whole of Kubernetes is bookworm's 1.20; newer ones hold `kubectl` only. It is built once
//! ([`binaries`]) and runs over each suite's containerd ([`node`]), whose clients see what they see on any cluster
//! ([`Cluster`]). What 1.20 has not can't be seen here: sidecars among the init containers, PodSecurity admission,
//! `batch/v1` CronJobs, `autoscaling/v2`. Nor is there a network plugin that enforces policies. The
//! DNS ([`names`]) and the metrics server ([`metrics`]) are small stand-ins.

mod binaries;
mod cluster;
pub mod manifest;
mod metrics;
mod names;
mod namespace;
mod node;

pub use cluster::Cluster;
pub use namespace::Namespace;
