//! The init of a native container: waits for the start signal inside libcontainer, then execs the container's program.
//!
//! What libcontainer's own executor does, and what it leaves to chance: the environment keeps its order, nothing of the
//! runner's is inherited, a home comes from the image's `/etc/passwd` without the image's C library, and messages are those
//! that Docker tells exit codes 126 and 127 by.

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use lighter_oci::{Guest, Hooks};
use lighter_runtime_api::protocol::Status;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    sys::{prctl, signal::Signal},
    unistd::{AccessFlags, execve, faccessat},
};
use oci_spec::runtime::Spec;

use crate::{
    Error, hooks,
    init::{NOT_STARTED, exit},
    legacy, signals,
    status::StatusStream,
};

/// Bytes of `/etc/passwd` that are looked at.
const PASSWD: u64 = 1 << 20;

/// libcontainer's executor. It demands `Clone`, though only one clone ever runs, in the forked init.
#[derive(Clone)]
pub(crate) struct Exec(Rc<RefCell<Program>>);

struct Program {
    guest: Guest,
    hooks: Hooks,
    user: u32,
    status: StatusStream,
    tethered: bool,
    /// What is exec'd, once it was found in the container.
    image: Option<Image>,
}

/// The arguments of `execve`.
pub(crate) struct Image {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Exec {
    pub(crate) fn new(guest: Guest, hooks: Hooks, user: u32, status: StatusStream, tethered: bool) -> Self {
        Self(Rc::new(RefCell::new(Program { guest, hooks, user, status, tethered, image: None })))
    }
}

impl Executor for Exec {
    /// Called in the container, as its user, before the start signal: creation fails where the program can't be run.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let failed = |why: String| ExecutorValidationError::ArgValidationError(why);
        let mut program = self.0.borrow_mut();
        if program.tethered {
            signals::end_unless_started().map_err(|error| failed(error.to_string()))?;
        }
        let image = Image::of(&program.guest, program.user).map_err(|error| failed(error.to_string()))?;
        program.image = Some(image);
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The program's environment goes with its exec.
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let program = self.0.borrow();
        let image = program.image.as_ref().ok_or(ExecutorError::InvalidArg)?;
        signals::started();
        // Only now: the runner was the parent until it ended, and its end would have counted.
        if program.tethered && (prctl::set_pdeathsig(Signal::SIGKILL).is_err() || program.status.is_abandoned()) {
            exit(NOT_STARTED);
        }
        if let Err(error) = hooks::start_container(&program.hooks, &image.env) {
            program.status.send(&Status::Failed { message: error.to_string() });
            exit(NOT_STARTED);
        }
        image.replace_process(&program.status)
    }
}

impl Image {
    /// Runs it in this process's place.
    pub(crate) fn replace_process(&self, status: &StatusStream) -> ! {
        legacy::drop_signals();
        status.send(&Status::Executing);
        let Err(errno) = execve(&self.path, &self.args, &self.env);
        let path = self.path.to_string_lossy();
        status.send(&Status::Failed { message: exec_error(&path, errno).to_string() });
        exit(NOT_STARTED)
    }

    /// Finds the program in this process's root filesystem, with its user's rights.
    pub(crate) fn of(guest: &Guest, user: u32) -> Result<Self, Error> {
        let name = guest.args.first().map_or("", String::as_str);
        let path_env = guest.env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
        let path = look_up(name, path_env)?;
        let string = |text: &[u8]| CString::new(text).map_err(|_| exec_error(name, Errno::EINVAL));
        let mut env = guest.env.clone();
        match env.iter_mut().find(|(name, _)| name == "HOME") {
            Some((_, home)) if home.is_empty() => *home = home_of(user),
            Some(_) => {}
            None => env.push(("HOME".to_owned(), home_of(user))),
        }
        Ok(Self {
            path: string(path.as_os_str().as_encoded_bytes())?,
            args: guest.args.iter().map(|arg| string(arg.as_bytes())).collect::<Result<_, _>>()?,
            env: env
                .iter()
                .map(|(name, value)| string(format!("{name}={value}").as_bytes()))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Finds a program as runc does: a name with a slash is a path, any other is looked for in the absolute folders of `PATH`.
/// Source: Go's `os/exec`, `LookPath`.
fn look_up(name: &str, path_env: &str) -> Result<PathBuf, Error> {
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name)).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {
                Error::Exec { program: name.to_owned(), why: format!("stat {name}: {}", says(errno)) }
            }
            errno => exec_error(name, errno),
        });
    }
    let folders = path_env.split(':').filter(|folder| folder.starts_with('/'));
    folders
        .map(|folder| Path::new(folder).join(name))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| Error::Exec { program: name.to_owned(), why: "executable file not found in $PATH".to_owned() })
}

/// Whether this process may execute it.
fn executable(path: &Path) -> Result<(), Errno> {
    let metadata = path.metadata().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // A seccomp profile may not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) if metadata.permissions().mode() & 0o111 != 0 => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => Err(Errno::EACCES),
        answer => answer,
    }
}

/// The user's home, as the container's own list of users says; `/` for one who is not in it.
fn home_of(user: u32) -> String {
    let read = || -> io::Result<String> {
        // It is the image's: a FIFO must not keep us.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd")?;
        read_bounded(&file)
    };
    let list = read().unwrap_or_default();
    home_in(&list, user).unwrap_or("/").to_owned()
}

fn read_bounded(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(PASSWD).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Source: passwd(5).
fn home_in(list: &str, user: u32) -> Option<&str> {
    list.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(user)).then(|| fields.get(5).copied().filter(|home| !home.is_empty()))?
    })
}

fn exec_error(program: &str, errno: Errno) -> Error {
    Error::Exec { program: program.to_owned(), why: says(errno) }
}

/// What the kernel's error means, as Go and so Docker spell it.
fn says(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn programs_are_found_as_runc_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("bin")).unwrap();
        fs::create_dir(path("bin/folder")).unwrap();
        for (name, mode) in [("bin/run", 0o755), ("bin/read", 0o644)] {
            fs::write(path(name), "").unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let path_env = format!("relative::/nope:{}", path("bin"));
        let says = |name: &str| match look_up(name, &path_env) {
            Ok(found) => found.to_str().unwrap().to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(says("run"), path("bin/run"));
        assert_eq!(says(&path("bin/run")), path("bin/run"));
        assert_eq!(says("nope"), r#"exec: "nope": executable file not found in $PATH"#);
        assert_eq!(says("folder"), r#"exec: "folder": executable file not found in $PATH"#);
        assert_eq!(says("read"), r#"exec: "read": executable file not found in $PATH"#);
        assert_eq!(says("/no/pe"), r#"exec: "/no/pe": stat /no/pe: no such file or directory"#);
        assert!(says(&path("bin/folder")).ends_with(r#"": is a directory"#));
        assert!(says(&path("bin/read")).ends_with(r#"": permission denied"#));
    }

    #[test]
    fn a_home_is_the_sixth_field_of_the_users_line() {
        let list = "# a list\nroot:x:0:0:root:/root:/bin/sh\nshort:x:7\nu:x:1000:1000::/home/u:\nv:x:1001:1:::\n";
        let table = [(0, Some("/root")), (1000, Some("/home/u")), (7, None), (1001, None), (5, None)];
        for (user, home) in table {
            assert_eq!(home_in(list, user), home, "{user}");
        }
    }
}
