//! What containers can be given, for who asks before it makes them: the answer to `-info`.
//!
//! Source: runtime-spec `features.md`. What isn't said there is unknown, not missing.

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use oci_spec::{
    OciSpecError,
    runtime::{
        ApparmorBuilder, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder, LinuxFeatureBuilder,
        LinuxNamespaceType, MountExtensionsBuilder, SeccompBuilder, SelinuxBuilder,
    },
};

/// By which containerd knows the document. Source: containerd's `core/runtime/typeurl.go`.
const TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Options of mounts that have an effect. With `rro`, CRI offers volumes that are read-only all the way down.
const MOUNT_OPTIONS: &[&str] = &[
    "bind",
    "dev",
    "diratime",
    "exec",
    "idmap",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nosuid",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "rw",
    "strictatime",
    "suid",
];

/// The features as containerd takes them.
pub(crate) fn any() -> anyhow::Result<Any> {
    let value = serde_json::to_vec(&features()?)?;
    Ok(Any { type_url: TYPE.to_owned(), value, ..Any::default() })
}

fn features() -> Result<Features, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Time, User, Uts};

    let linux = LinuxFeatureBuilder::default()
        .namespaces(vec![Cgroup, Ipc, Mount, Network, Pid, Time, User, Uts])
        .cgroup(CgroupBuilder::default().v1(true).v2(true).systemd(true).build()?)
        .seccomp(SeccompBuilder::default().enabled(true).build()?)
        .apparmor(ApparmorBuilder::default().enabled(true).build()?)
        .selinux(SelinuxBuilder::default().enabled(false).build()?)
        .mount_extensions(
            MountExtensionsBuilder::default().idmap(IDMapBuilder::default().enabled(true).build()?).build()?,
        )
        .build()?;
    FeaturesBuilder::default()
        .oci_version_min("1.0.0")
        .oci_version_max("1.2.1")
        .mount_options(MOUNT_OPTIONS.iter().map(ToString::to_string).collect::<Vec<_>>())
        .linux(linux)
        .build()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As containerd's CRI looks for them.
    #[test]
    fn pods_with_user_namespaces_are_announced() {
        let any = any().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&any.value).unwrap();
        assert!(json["linux"]["namespaces"].as_array().unwrap().contains(&"user".into()));
        assert_eq!(json["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(json["mountOptions"].as_array().unwrap().contains(&"rro".into()));
        assert_eq!(json["ociVersionMin"], "1.0.0");
    }
}
