//! `docker run --init`: a program of Docker's that comes first in the container, starts the image's and reaps orphans.
//!
//! A guest has no children, and a native program has no place beside it: it runs as if nobody had asked. What a native
//! program is started by stays.
//! Source: Docker's `daemon/oci_linux.go`, `withCommonOptions`.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

/// Where Docker mounts it, whatever it is on the host.
const PATH: &str = "/sbin/docker-init";
/// What Docker puts between it and the program's own arguments.
const SEPARATOR: &str = "--";

/// The arguments behind the init, if there is one.
pub(crate) fn behind<'a>(args: &'a [String], mounts: &[Mount]) -> Option<&'a [String]> {
    match args {
        [init, separator, program @ ..] if init == PATH && separator == SEPARATOR && !program.is_empty() => {
            mounts.iter().any(is_init).then_some(program)
        }
        _ => None,
    }
}

/// Takes it away, and leaves what is behind it.
pub(crate) fn remove(spec: &mut Spec) {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let Some(process) = spec.process_mut() else { return };
    let args = process.args().clone().unwrap_or_default();
    if let Some(program) = behind(&args, &mounts) {
        process.set_args(Some(program.to_vec()));
        mounts.retain(|mount| !is_init(mount));
        spec.set_mounts(Some(mounts));
    }
}

fn is_init(mount: &Mount) -> bool {
    mount.destination() == Path::new(PATH) && mount.typ().as_deref() == Some("bind")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MOUNT: &str =
        r#"{"destination":"/sbin/docker-init","type":"bind","source":"/usr/bin/docker-init","options":["bind","ro"]}"#;

    #[test]
    fn it_is_told_by_its_mount_and_its_separator() {
        let table = [
            (MOUNT, r#"["/sbin/docker-init","--","/a.wasm","-x"]"#, r#"["/a.wasm","-x"] 1"#),
            ("", r#"["/sbin/docker-init","--","/a.wasm"]"#, r#"["/sbin/docker-init","--","/a.wasm"] 1"#),
            (MOUNT, r#"["/sbin/docker-init","/a.wasm"]"#, r#"["/sbin/docker-init","/a.wasm"] 2"#),
            (MOUNT, r#"["/sbin/docker-init","--"]"#, r#"["/sbin/docker-init","--"] 2"#),
            (MOUNT, r#"["/bin/other","--","/a.wasm"]"#, r#"["/bin/other","--","/a.wasm"] 2"#),
            (
                &MOUNT.replace("bind", "tmpfs"),
                r#"["/sbin/docker-init","--","/a"]"#,
                r#"["/sbin/docker-init","--","/a"] 2"#,
            ),
        ];
        for (mount, args, expected) in table {
            let volume = r#"{"destination":"/v","type":"bind","source":"/v"}"#;
            let mounts = if mount.is_empty() { volume.to_owned() } else { format!("{volume},{mount}") };
            let json = format!(
                r#"{{"ociVersion":"1.2.0","mounts":[{mounts}],
                    "process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"args":{args}}}}}"#
            );
            let mut spec: Spec = serde_json::from_str(&json).unwrap();
            remove(&mut spec);
            let left = spec.process().as_ref().unwrap().args().clone().unwrap();
            let found = format!("{} {}", serde_json::to_string(&left).unwrap(), spec.mounts().as_ref().unwrap().len());
            assert_eq!(found, expected);
        }
    }
}
