//! The user namespace that a spec asks for, made or opened before libcontainer builds the container.
//!
//! libcontainer could make it as well. But the volumes are to be mounted by its ids first ([`crate::volumes`]), and on cgroup
//! v2 libcontainer takes every container that makes one for somebody's without root, and asks systemd for its cgroup.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use lighter_runtime_api::id_map::{IdMaps, IdRange};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        stat::{SFlag, fstat},
        wait::waitpid,
    },
    unistd::{ForkResult, Uid, fchown, fork},
};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, PosixRlimitType, Spec};

use crate::{Error, init::exit};

/// A user namespace that exists. The spec names it by this descriptor, so that it must live until the container was forked.
pub(crate) struct Users(OwnedFd);

impl Users {
    /// The one that a spec asks for; `None` where the host's is right. The spec then joins it, and asks for no other.
    ///
    /// # Errors
    /// There are no ids for it, or the kernel refuses.
    pub(crate) fn of(sandbox: &mut Spec) -> Result<Option<Self>, Error> {
        let Some(own) = namespace(sandbox) else { return Ok(None) };
        let users = match (own.path().clone(), maps_of(sandbox)) {
            (Some(path), _) => Self(File::open(path).map_err(failed("open it"))?.into()),
            (None, Some(maps)) => Self::make(&maps)?,
            (None, None) => {
                let why = "the spec has none; give it uidMappings and gidMappings";
                return Err(failed("map its ids")(io::Error::other(why)));
            }
        };
        raise_limits(sandbox).map_err(failed("raise limits for it"))?;
        if let Some(own) = namespace(sandbox) {
            own.set_path(Some(PathBuf::from(format!("/proc/self/fd/{}", users.0.as_raw_fd()))));
        }
        Ok(Some(users))
    }

    /// One with these ids, in which nobody is.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn make(maps: &IdMaps) -> Result<Self, Error> {
        let (mut made, mut tell) = io::pipe().map_err(failed("make a pipe"))?;
        let (mut waits, release) = io::pipe().map_err(failed("make a pipe"))?;
        // SAFETY: this process has one thread, so that nobody else's lock can be held in the child.
        let child = match unsafe { fork() }.map_err(io::Error::from).map_err(failed("fork"))? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop((made, release));
                let errno = unshare(CloneFlags::CLONE_NEWUSER).err().map_or(0, |errno| errno as i32);
                let _ = tell.write_all(&errno.to_ne_bytes());
                drop(tell);
                // Until the parent has it open, or is gone.
                let _ = waits.read(&mut [0]);
                exit(0)
            }
        };
        drop((tell, waits));
        let mut errno = [0; 4];
        let opened = made.read_exact(&mut errno).and_then(|()| match i32::from_ne_bytes(errno) {
            0 => maps.give(child.as_raw().unsigned_abs()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        });
        drop(release);
        // It ends now, whatever it was told.
        let _ = waitpid(child, None);
        opened.map(Self).map_err(failed("make it"))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn namespace(sandbox: &mut Spec) -> Option<&mut LinuxNamespace> {
    let namespaces = sandbox.linux_mut().as_mut()?.namespaces_mut().as_mut()?;
    namespaces.iter_mut().find(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// Whether the container has one.
pub(crate) fn has(sandbox: &mut Spec) -> bool {
    namespace(sandbox).is_some()
}

/// The host's user and group ids of root in the container; `None` where they are the host's own, or nobody knows.
pub(crate) fn root_of(sandbox: &Spec) -> Option<(u32, u32)> {
    maps_of(sandbox)?.root()
}

/// Gives pipes to the user that a native program's first process is, who may then open them by name (`/dev/stdout`) as well.
///
/// Source: runc's `init_linux.go`, `fixStdioPermissions`.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn give_pipes<'a>(sandbox: &Spec, streams: impl IntoIterator<Item = &'a OwnedFd>) -> Result<(), Error> {
    let user = sandbox.process().as_ref().map_or(0, |process| process.user().uid());
    let user = match maps_of(sandbox) {
        Some(maps) => maps.user(user),
        None => Some(user),
    };
    // Who is nobody here can't own anything.
    let Some(user) = user.map(Uid::from_raw) else { return Ok(()) };
    for stream in streams {
        let status = fstat(stream).map_err(failed("look at a stream"))?;
        let is_pipe = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO;
        if !is_pipe || status.st_uid == user.as_raw() {
            continue;
        }
        match fchown(stream, Some(user), None) {
            // It can be read and written as it is, by who has it open.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(failed("give it a stream")(errno)),
        }
    }
    Ok(())
}

/// The ids that a list of the spec's comes to; `None` where either has none.
pub(crate) fn maps(users: Option<&Vec<LinuxIdMapping>>, groups: Option<&Vec<LinuxIdMapping>>) -> Option<IdMaps> {
    let ranges = |list: Option<&Vec<LinuxIdMapping>>| {
        let range =
            |one: &LinuxIdMapping| IdRange { inside: one.container_id(), outside: one.host_id(), count: one.size() };
        list.filter(|list| !list.is_empty()).map(|list| list.iter().map(range).collect::<Vec<_>>())
    };
    Some(IdMaps { users: ranges(users)?, groups: ranges(groups)? })
}

/// The ids of the container's own user namespace.
pub(crate) fn maps_of(sandbox: &Spec) -> Option<IdMaps> {
    let linux = sandbox.linux().as_ref()?;
    maps(linux.uid_mappings().as_ref(), linux.gid_mappings().as_ref())
}

/// Limits are set in the user namespace, where nobody may raise what this process has: it raises its own before.
fn raise_limits(sandbox: &Spec) -> io::Result<()> {
    let limits = sandbox.process().as_ref().and_then(|process| process.rlimits().as_deref()).unwrap_or_default();
    for limit in limits {
        let resource = resource(limit.typ());
        let (soft, hard) = getrlimit(resource)?;
        if limit.hard() > hard {
            setrlimit(resource, soft, limit.hard())?;
        }
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

/// An [`Error::Users`] of this operation.
fn failed<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Users { operation, source: source.into() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec(linux: &str) -> Spec {
        let json = format!(r#"{{"ociVersion":"1.2.1","linux":{{"namespaces":[{{"type":"user"}}]{linux}}}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_namespace_needs_ids_that_the_kernel_takes() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: ids of others take root");
        }
        let with = |ids: &str| format!(r#","uidMappings":{ids},"gidMappings":{ids}"#);
        let table = [
            (with(r#"[{"containerID":0,"hostID":200000,"size":65536}]"#), None),
            (with(r#"[{"containerID":0,"hostID":200000,"size":1},{"containerID":1,"hostID":7,"size":1}]"#), None),
            (with(r#"[{"containerID":0,"hostID":4294967294,"size":65536}]"#), Some("make it: Invalid argument")),
            (
                with(r#"[{"containerID":0,"hostID":5,"size":2},{"containerID":1,"hostID":9,"size":2}]"#),
                Some("make it: Invalid argument"),
            ),
            (with("[]"), Some("the spec has none")),
            (String::new(), Some("the spec has none")),
        ];
        for (linux, expected) in table {
            let mut spec = spec(&linux);
            match (Users::of(&mut spec), expected) {
                (Ok(users), None) => {
                    let path = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap()[0].path().clone().unwrap();
                    let names = std::fs::read_link(&path).unwrap();
                    assert!(names.to_str().unwrap().starts_with("user:["), "{names:?}");
                    assert_ne!(names, std::fs::read_link("/proc/self/ns/user").unwrap());
                    drop(users);
                }
                (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (users, expected) => panic!("{linux}: {expected:?}, {}", users.is_ok()),
            }
        }
    }

    #[test]
    fn root_is_whom_the_ids_say() {
        let of = |linux: &str| root_of(&spec(linux));
        assert_eq!(of(""), None);
        assert_eq!(of(r#","uidMappings":[{"containerID":0,"hostID":5,"size":1}]"#), None, "no groups");
        let both = r#","uidMappings":[{"containerID":0,"hostID":5,"size":1}],"gidMappings":[{"containerID":0,"hostID":6,"size":1}]"#;
        assert_eq!(of(both), Some((5, 6)));
    }
}
