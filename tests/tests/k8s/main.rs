//! Lighter under a real Kubernetes, as `kubectl` shows it: on a node of the testbed's own, over each suite's containerd, or on
//! the cluster that `KUBECONFIG` names. `lighter_tests::kubernetes` says what can't be seen here.

mod ends;
mod failures;
mod given;
mod images;
mod installed;
mod kubectl;
mod metrics;
mod names;
mod pods;
mod restarts;
mod services;
mod symptoms;
mod volumes;

use lighter_tests::kubernetes::manifest;
