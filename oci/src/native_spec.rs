//! The spec that libcontainer builds for a native program: the bundle's as it is, with the words for what it leaves open,
//! where libcontainer would take what the runner happens to have.

use std::path::Path;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNamespaceType, Spec};

use crate::Error;

/// The umask of a program whose spec names none. Source: runc's `libcontainer/rootfs_linux.go`.
const UMASK: u32 = 0o022;

/// Turns the bundle's spec into the sandbox's.
pub(crate) fn derive(mut spec: Spec, rootfs: &Path, cgroup: &Path) -> Result<Spec, Error> {
    if let Some(root) = spec.root_mut() {
        root.set_path(rootfs.to_owned());
    }
    let linux = spec.linux_mut().as_mut().ok_or(Error::SpecLacks("linux section"))?;
    // libcontainer would mount in the host's.
    if !linux.namespaces().iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Mount) {
        return Err(Error::SpecLacks("mount namespace"));
    }
    linux.set_cgroups_path(Some(cgroup.to_owned()));

    let process = spec.process_mut().as_mut().ok_or(Error::SpecLacks("process"))?;
    // An absent set is an empty one: libcontainer takes it for one that needs no change.
    let capabilities = explicit(process.capabilities().as_ref())?;
    process.set_capabilities(Some(capabilities));
    if process.apparmor_profile().as_deref() == Some("") {
        process.set_apparmor_profile(None);
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(Some(UMASK));
    }
    // libcontainer would ask the C library for it, which loads code that the image's /etc/nsswitch.conf names. The program
    // gets its own from the runner.
    let mut env = process.env().clone().unwrap_or_default();
    env.retain(|variable| variable != "HOME=");
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push("HOME=/".to_owned());
    }
    process.set_env(Some(env));
    Ok(spec)
}

/// Each set as it is given. A default of the type's would have some in it.
fn explicit(given: Option<&LinuxCapabilities>) -> Result<LinuxCapabilities, Error> {
    let set =
        |of: fn(&LinuxCapabilities) -> &Option<Capabilities>| given.and_then(|g| of(g).clone()).unwrap_or_default();
    LinuxCapabilitiesBuilder::default()
        .bounding(set(LinuxCapabilities::bounding))
        .effective(set(LinuxCapabilities::effective))
        .permitted(set(LinuxCapabilities::permitted))
        .inheritable(set(LinuxCapabilities::inheritable))
        .ambient(set(LinuxCapabilities::ambient))
        .build()
        .map_err(|_| Error::SpecLacks("capabilities"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn spec(process: &str, linux: &str) -> Spec {
        let json = format!(
            r#"{{"ociVersion":"1.1.0","root":{{"path":"rootfs"}},
                "process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"args":["/a"]{process}}},
                "linux":{{"maskedPaths":["/proc/kcore"],"seccomp":{{"defaultAction":"SCMP_ACT_ERRNO"}}{linux}}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    const MOUNT: &str = r#","namespaces":[{"type":"mount"}]"#;

    #[test]
    fn what_is_left_open_is_nothing_and_what_is_said_stays() {
        let derive = |process: &str| derive(spec(process, MOUNT), Path::new("/r"), Path::new("/c")).unwrap();
        let bare = derive("");
        let process = bare.process().as_ref().unwrap();
        let none = Some(HashSet::new());
        let capabilities = process.capabilities().as_ref().unwrap();
        for set in [
            capabilities.bounding(),
            capabilities.effective(),
            capabilities.permitted(),
            capabilities.inheritable(),
            capabilities.ambient(),
        ] {
            assert_eq!(set, &none);
        }
        assert_eq!(process.user().umask(), Some(0o022));
        assert_eq!(process.env(), &Some(vec!["HOME=/".to_owned()]));
        let linux = bare.linux().as_ref().unwrap();
        assert!(linux.seccomp().is_some() && linux.masked_paths().is_some());
        assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/c")));
        assert_eq!(bare.root().as_ref().unwrap().path(), Path::new("/r"));

        let full = derive(
            r#","apparmorProfile":"p","env":["HOME=/h","A=1"],"capabilities":{"bounding":["CAP_CHOWN"],
                "effective":["CAP_CHOWN"]}"#,
        );
        let process = full.process().as_ref().unwrap();
        let capabilities = process.capabilities().as_ref().unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 1);
        assert_eq!(capabilities.permitted(), &none);
        assert_eq!(process.apparmor_profile().as_deref(), Some("p"));
        assert_eq!(process.env(), &Some(vec!["HOME=/h".to_owned(), "A=1".to_owned()]));
    }

    #[test]
    fn the_hosts_mount_namespace_is_refused() {
        let error = derive(spec("", ""), Path::new("/r"), Path::new("/c")).unwrap_err();
        assert!(error.to_string().contains("mount namespace"), "{error}");
    }
}
