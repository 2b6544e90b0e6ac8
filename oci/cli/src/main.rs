//! `lighter`: builds, pushes, pulls, inspects and runs WebAssembly images.

fn main() {}
