//! `create`: from a plan to a sandbox that waits for its start.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, BufWriter, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType, workload::Executor};
use lighter_oci::{Plan, Program, Terminal};
use lighter_runtime_api::{Backend, Isolation, MemoryBound, protocol::Status};
use nix::{
    fcntl::AtFlags,
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, fchownat},
};

use crate::{
    Error,
    compile::{self, Compiled},
    devices,
    exec::Exec,
    gaps,
    init::{Init, Payload},
    layer, legacy,
    seal::Seal,
    status::StatusStream,
    user_namespace,
    users::{self, Users},
    volumes,
};

/// The guest's standard streams, as inherited from the daemon.
pub(crate) struct Stdio {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What is inherited from the daemon, beside the status stream.
pub(crate) struct Inherited {
    pub(crate) stdio: Stdio,
    /// The guest's bound on memory; nothing where it is the plan's for ever.
    pub(crate) memory: Option<MemoryBound>,
}

impl Inherited {
    /// Puts the bound as it is now into the plan, for what is decided once. Returns the one to be asked while the guest runs.
    pub(crate) fn bound(&self, plan: &mut Plan) -> MemoryBound {
        match self.memory {
            Some(memory) => {
                plan.guest.memory = memory.current();
                memory
            }
            None => MemoryBound::fixed(plan.guest.memory),
        }
    }
}

/// Builds the sandbox. Returns what to tell the daemon: the init's pid, as this process sees it.
pub(crate) fn create<B: Backend>(
    backend: B,
    plan: Plan,
    inherited: Inherited,
    status: StatusStream,
) -> Result<Status, Error> {
    match kind(&backend, &plan)? {
        Isolation::Sealed => sealed(backend, plan, inherited, status),
        Isolation::Own => native(plan, inherited.stdio, status),
    }
}

/// How a plan's program is kept from the host, if this engine runs it at all.
pub(crate) fn kind<B: Backend>(backend: &B, plan: &Plan) -> Result<Isolation, Error> {
    let wrong = |is, other| {
        Err(Error::WrongEngine { entrypoint: plan.entrypoint.clone(), is, engine: backend.identity().name, other })
    };
    match (plan.program, backend.isolation()) {
        (Program::Wasm, Isolation::Sealed) => Ok(Isolation::Sealed),
        (Program::Native, Isolation::Own) => Ok(Isolation::Own),
        (Program::Native, Isolation::Sealed) => wrong("a native program", Program::NATIVE),
        (Program::Wasm, Isolation::Own) => wrong("WebAssembly", "one for WebAssembly, or leave the choice out"),
    }
}

/// A guest that is ready to run, and the seal for the process that it will run in.
pub(crate) struct Prepared<L> {
    pub(crate) loaded: L,
    pub(crate) seal: Seal,
    /// For the log, a line each.
    pub(crate) notes: Vec<String>,
    /// Id of the process that makes better code.
    pub(crate) background: Option<u32>,
}

/// Loads a plan's module, and prepares the seal. What was opened for it stays open behind the seal, and `status`.
pub(crate) fn prepare<B: Backend>(
    backend: &B,
    plan: &Plan,
    status: &StatusStream,
) -> Result<Prepared<B::Loaded>, Error> {
    let module = layer::find(plan)?;
    let before = open_descriptors()?;
    let Compiled { loaded, mut notes, background } = compile::load(backend, plan, module)?;
    // What the engine holds on to: the file that its code and memory images are mapped from.
    let after = open_descriptors()?;
    let held: Vec<&(RawFd, PathBuf)> = after.difference(&before).collect();
    let page_maps = held.iter().filter(|(_, target)| target.ends_with("pagemap")).map(|(fd, _)| *fd).collect();
    let mut keep: BTreeSet<RawFd> = held.iter().map(|(fd, _)| *fd).collect();
    keep.extend([libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO, status.as_raw_fd()]);
    notes.extend(backend.notes(&loaded));
    let sockets = backend.sockets(&loaded, &plan.guest);
    let seal = Seal::new(keep, plan.seccomp.clone(), plan.apparmor.clone(), &sockets)?.with_page_maps(page_maps);
    Ok(Prepared { loaded, seal, notes, background })
}

/// A guest that runs in this process's child, behind the seal.
fn sealed<B: Backend>(backend: B, mut plan: Plan, inherited: Inherited, status: StatusStream) -> Result<Status, Error> {
    let memory = inherited.bound(&mut plan);
    let Prepared { loaded, seal, notes, background } = prepare(&backend, &plan, &status)?;
    make_working_directory(&plan)?;
    if plan.user_namespace {
        user_namespace::enter()?;
    }
    let terminal = plan.terminal.is_some();
    let guest = plan.guest.clone();
    let tethered = plan.tethered;
    let payload = Payload { backend, loaded, guest, memory, seal, status, terminal, tethered, joined: false };
    let init = Init::new(payload);
    let pid = build(&mut plan, init, inherited.stdio)?;
    if users::has(&mut plan.sandbox) {
        // Its devices are the host's files, with the host's modes.
        bind_to_devices(&plan, pid)?;
    }
    Ok(Status::Created { pid, notes, background })
}

/// A program that the kernel runs. The spec is all that keeps it.
fn native(mut plan: Plan, stdio: Stdio, status: StatusStream) -> Result<Status, Error> {
    make_working_directory(&plan)?;
    if plan.user_namespace {
        user_namespace::enter()?;
    } else {
        legacy::drop_identity()?;
        gaps::join_other_hierarchies(&plan.cgroup)?;
    }
    gaps::close(&mut plan.sandbox, &plan.rootfs);
    if !plan.user_namespace {
        users::give_pipes(&plan.sandbox, [&stdio.stdin, &stdio.stdout, &stdio.stderr])?;
    }
    let user = plan.sandbox.process().as_ref().map_or(0, |process| process.user().uid());
    let init = Exec::new(plan.guest.clone(), plan.hooks.clone(), user, status, plan.tethered);
    let pid = build(&mut plan, init, stdio)?;
    if !plan.user_namespace {
        bind_to_devices(&plan, pid)?;
    }
    Ok(Status::Created { pid, notes: Vec::new(), background: None })
}

/// Has the kernel keep a container to the devices of its spec's rules, where libcontainer does not.
fn bind_to_devices(plan: &Plan, init: i32) -> Result<(), Error> {
    if !gaps::is_unified() {
        return Ok(());
    }
    let resources = plan.sandbox.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    devices::bind(init, rules).inspect_err(|_| {
        // Nobody is to start it, and nobody is told of it.
        let _ = kill(Pid::from_raw(init), Signal::SIGKILL);
    })
}

/// Has libcontainer build the sandbox with this init. Returns the init's pid.
fn build(plan: &mut Plan, init: impl Executor + Clone + 'static, stdio: Stdio) -> Result<i32, Error> {
    if !plan.user_namespace {
        gaps::make_parents(&plan.cgroup);
    }
    let failed = |source| Error::WriteState { path: plan.state.clone(), source };
    DirBuilder::new().mode(0o700).create(&plan.state).map_err(failed)?;
    volumes::admit_root(&plan.sandbox, &plan.state).map_err(failed)?;
    // The spec names it by its descriptor, until the init was forked.
    let users = Users::of(&mut plan.sandbox)?;
    volumes::bring(&mut plan.sandbox, users.as_ref(), &plan.state)?;
    write_spec(&plan.state, &plan.sandbox).map_err(failed)?;
    let socket = match &plan.terminal {
        Some(Terminal::Made { socket }) => Some(socket.clone()),
        Some(Terminal::Inherited) | None => None,
    };
    let container = ContainerBuilder::new(plan.id.clone(), SyscallType::default())
        .with_executor(init)
        .with_console_socket(socket)
        .with_root_path(&plan.state)?
        .with_stdin(stdio.stdin)
        .with_stdout(stdio.stdout)
        .with_stderr(stdio.stderr)
        .as_init(&plan.state)
        .with_systemd(plan.cgroup.systemd)
        .with_detach(true)
        .build()?;
    Ok(container.pid().ok_or_else(|| Error::Sandbox("it has no init process".to_owned()))?.as_raw())
}

/// Makes the working directory in the rootfs, as other runtimes do.
fn make_working_directory(plan: &Plan) -> Result<(), Error> {
    let path = &plan.guest.cwd;
    let failed = |error: pathrs::error::Error| Error::WorkingDirectory { path: path.clone(), why: error.to_string() };
    let root = pathrs::Root::open(&plan.rootfs).map_err(failed)?;
    // It may be a volume's path, which exists only once the sandbox stands; there the mount point is made anyway.
    let missing: Vec<&Path> = path.ancestors().take_while(|path| root.resolve(path).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    root.mkdir_all(path, &fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let Some((user, group)) = users::root_of(&plan.sandbox) else { return Ok(()) };
    // What is made is the container's, whose root has another id here.
    let give = |made: &Path| -> io::Result<()> {
        let folder = OwnedFd::from(root.resolve(made).map_err(io::Error::other)?);
        let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        Ok(fchownat(&folder, "", user, group, AtFlags::AT_EMPTY_PATH)?)
    };
    let given = missing.into_iter().try_for_each(give);
    given.map_err(|error| Error::WorkingDirectory { path: path.clone(), why: error.to_string() })
}

/// libcontainer reads its spec from a file in a folder that it calls the bundle.
fn write_spec(state: &Path, sandbox: &oci_spec::runtime::Spec) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(state.join("config.json"))?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, sandbox)?;
    file.flush()
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
