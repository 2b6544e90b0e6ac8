//! A running container, by its init: the namespaces and the cgroup that a process enters.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::failed;
use crate::Error;

/// In the order in which they are entered: the user namespace gives the rights for the others, and after the mount namespace
/// nothing of the host's is left to be opened. Source: namespaces(7).
const NAMESPACES: &[(&str, CloneFlags)] = &[
    ("user", CloneFlags::CLONE_NEWUSER),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// What there is to enter. Opened on the host.
pub(super) struct Container {
    cgroups: Vec<(PathBuf, File)>,
    /// How eager the kernel is to end it when memory is short, as the init's is. Source: proc_pid_oom_score_adj(5).
    oom_score_adj: String,
    pid: Option<File>,
    namespaces: Vec<(&'static str, File, CloneFlags)>,
}

impl Container {
    /// Of the container with this init. Namespaces that this process is in already are left out.
    ///
    /// # Errors
    /// The init has ended, or the kernel refuses.
    pub(super) fn open(init: i32, cgroups: &[PathBuf]) -> Result<Self, Error> {
        let process = PathBuf::from(format!("/proc/{init}"));
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => failed("look at its init")("it has ended"),
            _ => failed("look at its init")(error),
        };
        let open = |folder: &Path| {
            let path = folder.join("cgroup.procs");
            let file = OpenOptions::new().write(true).open(&path).map_err(failed("open its cgroup"))?;
            Ok((path, file))
        };
        let mut namespaces = Vec::new();
        for &(name, kind) in NAMESPACES {
            if let Some(file) = namespace(&process, name).map_err(gone)? {
                namespaces.push((name, file, kind));
            }
        }
        Ok(Self {
            cgroups: cgroups.iter().map(|folder| open(folder)).collect::<Result<_, Error>>()?,
            oom_score_adj: fs::read_to_string(process.join("oom_score_adj")).map_err(gone)?,
            pid: namespace(&process, "pid").map_err(gone)?,
            namespaces,
        })
    }

    /// Enters what a child inherits and a process can't enter by itself: the cgroup, and the PID namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn enter_first(&self) -> Result<(), Error> {
        // Not to be had for less than it has now without a capability, which a shim in a container lacks.
        if let Err(error) = fs::write("/proc/self/oom_score_adj", self.oom_score_adj.trim()) {
            tracing::debug!(%error, "oom_score_adj stays");
        }
        for (path, mut file) in self.cgroups.iter().map(|(path, file)| (path, file)) {
            file.write_all(b"0").map_err(|source| Error::JoinCgroup { path: path.clone(), source })?;
        }
        self.pid
            .as_ref()
            .map_or(Ok(()), |pid| setns(pid, CloneFlags::CLONE_NEWPID))
            .map_err(failed("enter namespace pid"))
    }

    /// Enters the rest.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn enter(self) -> Result<(), Error> {
        for (name, file, kind) in self.namespaces {
            setns(file, kind).map_err(|errno| failed("enter namespace")(format!("{name}: {errno}")))?;
            if kind == CloneFlags::CLONE_NEWUSER {
                become_root().map_err(failed("become root of its user namespace"))?;
            }
        }
        Ok(())
    }
}

/// In a user namespace that was just entered. The host's root has all rights there, but is nobody, to whom no file belongs.
fn become_root() -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    match setgroups(&[]) {
        // The namespace forbids it; there are none to leave then.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// A namespace of a process's that is not this one's; nothing where the kernel has no such namespaces.
fn namespace(process: &Path, name: &str) -> io::Result<Option<File>> {
    let path = process.join("ns").join(name);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && process.exists() => return Ok(None),
        file => file?,
    };
    let (theirs, ours) = (file.metadata()?, Path::new("/proc/self/ns").join(name).metadata()?);
    Ok(((theirs.dev(), theirs.ino()) != (ours.dev(), ours.ino())).then_some(file))
}
