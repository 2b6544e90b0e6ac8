//! Fetches a container's module from containerd's content store.

fn main() {}
