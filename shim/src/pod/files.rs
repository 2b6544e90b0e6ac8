//! Files that a pod's containers share: `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`, and `/dev/shm`. They are in one
//! tmpfs in the pod's bundle.
//!
//! containerd makes them where it runs a pause container. Where it doesn't, it leaves them out of the containers' specs, and
//! each has the `/dev/shm` of its own that is in every spec.

use std::{fmt::Write, fs, io, os::unix::fs::PermissionsExt, path::Path};

use nix::mount::{MsFlags, mount};
use oci_spec::runtime::{Mount, MountBuilder, Spec};

use super::{
    config::{Dns, PodConfig},
    mounted,
};
use crate::{error::Error, rootfs};

/// Name in the tmpfs, and path in a container.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];
const SHM: (&str, &str) = ("shm", "/dev/shm");
/// As large as containerd makes a pod's `/dev/shm`.
const SIZE: &str = "mode=0755,size=64m";

/// Makes them. On an error none is left.
pub(crate) fn make(bundle: &Path, config: &PodConfig, own_ipc: bool) -> Result<(), Error> {
    let target = mounted(bundle);
    let failed = Error::system::<io::Error>("make the pod's files");
    match fs::create_dir(&target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("pod"), &target, Some("tmpfs"), flags, Some(SIZE)).map_err(|errno| failed(errno.into()))?;
    fill(&target, config, own_ipc).map_err(|error| {
        let _ = rootfs::unmount(&target);
        failed(error)
    })
}

/// Removes them. Nothing there is no error.
pub(crate) fn remove(bundle: &Path) -> Result<(), Error> {
    rootfs::unmount(&mounted(bundle))
}

/// Mounts them in a container, where its spec has nothing better.
pub(crate) fn add(bundle: &Path, spec: &mut Spec) -> Result<(), Error> {
    let folder = mounted(bundle);
    let access =
        if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) { "ro" } else { "rw" };
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for (name, path) in FILES {
        let source = folder.join(name);
        if source.exists() && !mounts.iter().any(|mount| mount.destination() == Path::new(path)) {
            mounts.push(bind(&source, path, access)?);
        }
    }
    let shared = folder.join(SHM.0);
    let own = |mount: &&mut Mount| {
        mount.destination() == Path::new(SHM.1) && mount.typ().as_deref().is_some_and(|kind| kind == "tmpfs")
    };
    if shared.exists()
        && let Some(mount) = mounts.iter_mut().find(own)
    {
        *mount = bind(&shared, SHM.1, "rw")?;
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn bind(source: &Path, path: &str, access: &str) -> Result<Mount, Error> {
    let options = ["bind", "rprivate", "nosuid", "nodev", "noexec", access].map(str::to_owned);
    let mount = MountBuilder::default().destination(path).typ("bind").source(source).options(options).build();
    mount.map_err(|error| Error::system("mount the pod's files")(io::Error::other(error)))
}

fn fill(folder: &Path, config: &PodConfig, own_ipc: bool) -> io::Result<()> {
    let hostname = match config.hostname.as_str() {
        "" => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        name => name.to_owned(),
    };
    fs::write(folder.join("hostname"), hostname + "\n")?;
    copy("/etc/hosts", &folder.join("hosts"))?;
    match &config.dns {
        Some(dns) => fs::write(folder.join("resolv.conf"), resolver(dns))?,
        None => copy("/etc/resolv.conf", &folder.join("resolv.conf"))?,
    }
    if own_ipc {
        let shared = folder.join(SHM.0);
        fs::create_dir(&shared)?;
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777))?;
    }
    Ok(())
}

/// Copies a file of the host's, if it has one.
fn copy(from: &str, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(text) => fs::write(to, text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Source: resolv.conf(5).
fn resolver(dns: &Dns) -> String {
    let mut text = String::new();
    let mut line = |keyword: &str, words: &[String]| {
        if !words.is_empty() {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{keyword} {}", words.join(" "));
        }
    };
    line("search", &dns.searches);
    dns.servers.iter().for_each(|server| line("nameserver", std::slice::from_ref(server)));
    line("options", &dns.options);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_configured_as_asked() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let dns =
            Dns { servers: words(&["10.0.0.1", "::1"]), searches: words(&["a.b", "c"]), options: words(&["ndots:5"]) };
        assert_eq!(resolver(&dns), "search a.b c\nnameserver 10.0.0.1\nnameserver ::1\noptions ndots:5\n");
        assert_eq!(resolver(&Dns::default()), "");
    }

    #[test]
    fn a_container_gets_what_its_spec_lacks() {
        let bundle = tempfile::tempdir().unwrap();
        let folder = mounted(bundle.path());
        fs::create_dir(&folder).unwrap();
        fill(&folder, &PodConfig { hostname: "box".to_owned(), ..PodConfig::default() }, true).unwrap();
        assert_eq!(fs::read_to_string(folder.join("hostname")).unwrap(), "box\n");
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.1.0","root":{"path":"rootfs","readonly":true},"mounts":[
                {"destination":"/etc/hosts","type":"bind","source":"/kubelets"},
                {"destination":"/dev/shm","type":"tmpfs","source":"shm"}]}"#,
        )
        .unwrap();
        add(bundle.path(), &mut spec).unwrap();
        let mounts = spec.mounts().clone().unwrap();
        let source_of = |path: &str| {
            let mut of = mounts.iter().filter(|mount| mount.destination() == Path::new(path));
            let source = of.next().unwrap().source().clone().unwrap();
            assert!(of.next().is_none(), "{path} twice");
            source
        };
        assert_eq!(source_of("/etc/hosts"), Path::new("/kubelets"));
        assert_eq!(source_of("/etc/hostname"), folder.join("hostname"));
        assert_eq!(source_of("/dev/shm"), folder.join("shm"));
        let options = |path: &str| {
            let mount = mounts.iter().find(|mount| mount.destination() == Path::new(path)).unwrap();
            mount.options().clone().unwrap()
        };
        assert!(options("/etc/hostname").contains(&"ro".to_owned()), "a root filesystem that is read-only");
        assert!(options("/dev/shm").contains(&"rw".to_owned()));
    }

    #[test]
    fn the_hosts_shared_memory_stays() {
        let bundle = tempfile::tempdir().unwrap();
        let folder = mounted(bundle.path());
        fs::create_dir(&folder).unwrap();
        fill(&folder, &PodConfig::default(), false).unwrap();
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.1.0","mounts":[{"destination":"/dev/shm","type":"bind","source":"/dev/shm"}]}"#,
        )
        .unwrap();
        add(bundle.path(), &mut spec).unwrap();
        let mounts = spec.mounts().clone().unwrap();
        assert_eq!(mounts[0].source().as_deref(), Some(Path::new("/dev/shm")));
    }
}
