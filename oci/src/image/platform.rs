//! Which of an index's manifests is ours.

use std::env::consts;

use oci_spec::image::Platform;

/// In the order in which they are looked for. Kubernetes can't ask for a platform, so an index with a native image and a
/// WebAssembly one means the latter to this runtime.
const WASM: &[(&str, &str)] =
    &[("wasi", "wasm"), ("wasip2", "wasm"), ("wasip1", "wasm"), ("wasi", "wasm32"), ("linux", "wasm")];

/// As users write it: `os/architecture`.
#[must_use]
pub fn name(platform: &Platform) -> String {
    format!("{}/{}", platform.os(), platform.architecture())
}

/// The lower the better; `None` is not for us. A manifest that names no platform may be any.
#[must_use]
pub fn rank(platform: Option<&Platform>) -> Option<usize> {
    let Some(platform) = platform else { return Some(WASM.len() + 1) };
    let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
    let wasm = WASM.iter().position(|&(o, a)| os == o && architecture == a);
    let host = || (os == consts::OS && architecture == go_architecture(consts::ARCH)).then_some(WASM.len());
    wasm.or_else(host)
}

/// Go's word for an architecture of Rust's, which image indexes and CRI use.
#[must_use]
pub fn go_architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use oci_spec::image::PlatformBuilder;

    use super::*;

    fn of(os: &str, architecture: &str) -> Option<usize> {
        rank(Some(&PlatformBuilder::default().os(os).architecture(architecture).build().unwrap()))
    }

    #[test]
    fn wasm_comes_before_the_host_and_the_host_before_the_unknown() {
        let host = of(consts::OS, go_architecture(consts::ARCH));
        let order = [
            of("wasi", "wasm"),
            of("wasip2", "wasm"),
            of("wasip1", "wasm"),
            of("wasi", "wasm32"),
            of("linux", "wasm"),
            host,
            rank(None),
        ];
        assert!(order.iter().all(Option::is_some), "{order:?}");
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
        assert_eq!(of("windows", "amd64"), None);
        assert_eq!(of("unknown", "unknown"), None);
    }
}
