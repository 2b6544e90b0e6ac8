//! `create`: from a plan to a sandbox that waits for its start.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use lighter_oci::Plan;
use lighter_runtime_api::{Backend, protocol::Status};

use crate::{
    Error,
    compile::{self, Compiled},
    init::Init,
    layer,
    seal::Seal,
    status::StatusStream,
    user_namespace,
};

/// The guest's standard streams, as inherited from the daemon.
pub(crate) struct Stdio {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Builds the sandbox. Returns what to tell the daemon: the init's pid, as this process sees it.
pub(crate) fn create<B: Backend>(backend: B, plan: Plan, stdio: Stdio, status: StatusStream) -> Result<Status, Error> {
    let module = layer::find(&plan)?;
    make_working_directory(&plan)?;

    let before = open_descriptors()?;
    let Compiled { loaded, notes, background } = compile::load(&backend, &plan, module)?;
    // What the engine holds on to: the file that its code and memory images are mapped from.
    let mut keep: BTreeSet<RawFd> = open_descriptors()?.difference(&before).map(|(fd, _)| *fd).collect();
    keep.extend([libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO, status.as_raw_fd()]);

    if plan.user_namespace {
        user_namespace::enter()?;
    }
    let Plan { id, state, sandbox, seccomp, apparmor, cgroup, guest, tethered, .. } = plan;
    let seal = Seal::new(keep, seccomp, apparmor, &backend.sockets(&loaded, &guest))?;
    write_state(&state, &sandbox)?;
    let container = ContainerBuilder::new(id, SyscallType::default())
        .with_executor(Init::new(backend, loaded, guest, seal, status, tethered))
        .with_root_path(&state)?
        .with_stdin(stdio.stdin)
        .with_stdout(stdio.stdout)
        .with_stderr(stdio.stderr)
        .as_init(&state)
        .with_systemd(cgroup.systemd)
        .with_detach(true)
        .build()?;
    let pid = container.pid().ok_or_else(|| Error::Sandbox("it has no init process".to_owned()))?.as_raw();
    Ok(Status::Created { pid, notes, background })
}

/// Makes the working directory in the rootfs, as other runtimes do.
fn make_working_directory(plan: &Plan) -> Result<(), Error> {
    let path = &plan.guest.cwd;
    let failed = |error: pathrs::error::Error| Error::WorkingDirectory { path: path.clone(), why: error.to_string() };
    let root = pathrs::Root::open(&plan.rootfs).map_err(failed)?;
    // It may be a volume's path, which exists only once the sandbox stands; there the mount point is made anyway.
    if root.resolve(path).is_err() {
        root.mkdir_all(path, &fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    Ok(())
}

/// libcontainer reads its spec from a file in a folder that it calls the bundle.
fn write_state(state: &Path, sandbox: &oci_spec::runtime::Spec) -> Result<(), Error> {
    let failed = |source| Error::WriteState { path: state.to_owned(), source };
    DirBuilder::new().mode(0o700).create(state).map_err(failed)?;
    let json = serde_json::to_vec(sandbox).map_err(|error| failed(error.into()))?;
    fs::write(state.join("config.json"), json).map_err(failed)
}

/// Open descriptors, each with what it refers to: the number alone may be somebody else's by the next call.
fn open_descriptors() -> Result<BTreeSet<(RawFd, PathBuf)>, Error> {
    let mut open = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd").map_err(Error::Descriptors)? {
        let entry = entry.map_err(Error::Descriptors)?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // The descriptor of this very listing is gone after it.
        if let (Some(fd), Ok(target)) = (number, fs::read_link(entry.path())) {
            open.insert((fd, target));
        }
    }
    Ok(open)
}
