//! Pods by CRI, as the kubelet runs them: every case under runc, and what runc passes, Lighter is to pass.
//!
//! Each module is one concern. A test is made for every suite, and for each kind of container that it names.

mod containers;
mod crash;
mod exec;
mod held;
mod images;
mod logs;
mod mounts;
mod namespaces;
mod network;
mod resources;
mod sandboxes;
mod security;
mod streams;
mod target;
mod users;
