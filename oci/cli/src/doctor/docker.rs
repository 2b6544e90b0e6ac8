//! Docker: keeps images in containerd, and tells the shim which.

use super::{Finding, facts::Docker, version::Version};

const CHECK: &str = "docker";
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// Older ones don't set the container's image in containerd, so the shim can't find layers that are modules.
const TELLS_IMAGE: Version = Version(27, 0, 0);
/// Since then, the containerd image store is what new installs have.
const STORE_BY_DEFAULT: Version = Version(29, 0, 0);

pub(super) fn check(docker: Option<&Docker>) -> Vec<Finding> {
    let Some(docker) = docker else { return vec![Finding::ok(CHECK, "not installed")] };
    vec![version(docker), store(docker)]
}

fn version(docker: &Docker) -> Finding {
    match docker.version {
        None => Finding::warning(
            CHECK,
            "it does not tell its version",
            "start it: systemctl start docker; or let this user reach it (root, or group docker)",
        ),
        Some(version) if version < TELLS_IMAGE => Finding::warning(
            CHECK,
            format!("{version} does not tell the shim a container's image: artifacts and --format image can't run"),
            "install Docker 27 or newer, or build images with --format tar",
        ),
        Some(version) => Finding::ok(CHECK, format!("{version}")),
    }
}

/// Images for `wasi/wasm` need the containerd image store.
fn store(docker: &Docker) -> Finding {
    const CHECK: &str = "docker images";
    let cure = format!(
        "put {{\"features\": {{\"containerd-snapshotter\": true}}}} into {DAEMON_JSON}, then: systemctl restart docker\n\
         (images that were pulled before are not shown until it is taken out again)"
    );
    match docker.containerd_store {
        Some(true) => return Finding::ok(CHECK, "kept in containerd"),
        Some(false) => {
            return Finding::problem(CHECK, "not kept in containerd, so there can be none for wasi/wasm", cure);
        }
        None => {}
    }
    let configured = match &docker.config {
        Some(Err(why)) => {
            return Finding::problem(CHECK, format!("{DAEMON_JSON}: {why}"), format!("correct {DAEMON_JSON}"));
        }
        Some(Ok(config)) => config.pointer("/features/containerd-snapshotter").and_then(serde_json::Value::as_bool),
        None => None,
    };
    match (configured, docker.version) {
        (Some(true), _) => Finding::ok(CHECK, format!("to be kept in containerd, says {DAEMON_JSON}")),
        (Some(false), _) => {
            Finding::problem(CHECK, format!("{DAEMON_JSON} says that containerd is not to keep them"), cure)
        }
        (None, Some(version)) if version >= STORE_BY_DEFAULT => Finding::warning(
            CHECK,
            "kept in containerd if Docker was first installed with version 29 or newer; it does not answer to tell",
            format!("run `docker info`; unless it says driver-type io.containerd.snapshotter.v1: {cure}"),
        ),
        (None, _) => {
            Finding::problem(CHECK, "not kept in containerd by default, so there can be none for wasi/wasm", cure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    fn docker(version: Version, config: Option<&str>, containerd_store: Option<bool>) -> Docker {
        let parse = |text: &str| serde_json::from_str(text).map_err(|error: serde_json::Error| error.to_string());
        Docker { version: Some(version), config: config.map(parse), containerd_store }
    }

    #[test]
    fn the_image_store_is_judged() {
        let (old, new) = (Version(28, 5, 2), Version(29, 0, 1));
        let on = Some(r#"{"features":{"containerd-snapshotter":true}}"#);
        let off = Some(r#"{"features":{"containerd-snapshotter":false}}"#);
        let table = [
            (docker(old, on, None), Status::Ok),
            (docker(old, off, None), Status::Problem),
            (docker(old, None, None), Status::Problem),
            (docker(old, Some("{}"), None), Status::Problem),
            (docker(new, None, None), Status::Warning),
            (docker(new, off, None), Status::Problem),
            (docker(old, Some("{"), None), Status::Problem),
            // What it says itself counts more than what a restart would make of the file.
            (docker(old, None, Some(true)), Status::Ok),
            (docker(old, on, Some(false)), Status::Problem),
        ];
        for (docker, status) in table {
            assert_eq!(store(&docker).status, status, "{docker:?}");
        }
    }

    #[test]
    fn versions_are_judged() {
        assert_eq!(version(&docker(Version(26, 1, 5), None, None)).status, Status::Warning);
        assert_eq!(version(&docker(Version(28, 5, 2), None, None)).status, Status::Ok);
        assert_eq!(check(None)[0].status, Status::Ok);
    }
}
