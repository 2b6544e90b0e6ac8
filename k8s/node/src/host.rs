//! The host's files, seen through the folder where its root is mounted, and its programs.
//!
//! Every path is the host's own, absolute: `/etc/containerd/config.toml`. Links on the way lead where they lead on the
//! host.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use pathrs::Root;

use crate::Error;

/// How long a program of the host's may take: systemd waits 90 s for a service, and kills it then.
const PATIENCE: Duration = Duration::from_secs(300);
/// The mode of a file that wasn't there, such as containerd's packages give theirs.
const MODE: u32 = 0o644;

/// A host, by the folder that its root is mounted at.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// A file's bytes and mode, by which it can be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
}

impl Content {
    /// Of a file that is made anew.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { bytes: bytes.into(), mode: MODE, owner }
    }
}

impl Host {
    /// `root` is `/` where this runs on the host itself.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether this runs on the host itself.
    fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the host's is for this process. Links in it are followed, beneath the root; of a path that isn't
    /// there, as far as there is something.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.resolved(path).unwrap_or_else(|| match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => self.path(folder).join(name),
            _ => self.root.clone(),
        })
    }

    fn resolved(&self, path: &Path) -> Option<PathBuf> {
        let handle = Root::open(&self.root).ok()?.resolve(path).ok()?;
        // Its name, for a folder that has to be written to by name.
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&handle)));
        fs::read_link(link).ok()
    }

    /// Whether there is something.
    #[must_use]
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// A file's content, or none where there is none.
    ///
    /// # Errors
    /// It is there, but can't be read; it is a link to what isn't there.
    pub fn read(&self, path: &Path) -> Result<Option<Content>, Error> {
        let place = self.path(path);
        let failed = |source| Error::Read { path: path.to_owned(), source };
        // Every other link was followed. In our root, not the host's, this one would be by the system.
        if place.is_symlink() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it is a link to what isn't there")));
        }
        let bytes = match fs::read(&place) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            bytes => bytes.map_err(failed)?,
        };
        let metadata = fs::metadata(&place).map_err(failed)?;
        let (mode, owner) = (metadata.permissions().mode() & 0o7777, (metadata.uid(), metadata.gid()));
        Ok(Some(Content { bytes, mode, owner }))
    }

    /// [`Host::read`] of text.
    ///
    /// # Errors
    /// It is there, but can't be read or is no UTF-8.
    pub fn read_text(&self, path: &Path) -> Result<Option<String>, Error> {
        let Some(content) = self.read(path)? else { return Ok(None) };
        let text = String::from_utf8(content.bytes).map_err(|error| Error::Read {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        Ok(Some(text))
    }

    /// Writes a file so that there is the old one or the new one, whenever the machine stops.
    ///
    /// # Errors
    /// The folder is missing or can't be written to.
    pub fn write(&self, path: &Path, content: &Content) -> Result<(), Error> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let place = self.path(path);
        let folder = place.parent().unwrap_or(&self.root);
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        // Not one that `*.toml` would find.
        let temporary = folder.join(format!(".{name}.lighter-node"));
        let written = (|| {
            // One that an interrupted run left, or a link that would lead elsewhere.
            absent(fs::remove_file(&temporary))?;
            // A registry's password may be in it: nobody else's before it has its mode.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(&content.bytes)?;
            file.set_permissions(Permissions::from_mode(content.mode))?;
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != content.owner {
                chown(&temporary, Some(content.owner.0), Some(content.owner.1))?;
            }
            file.sync_all()?;
            fs::rename(&temporary, &place)?;
            sync_folder(folder)
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(error)
        })
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// It is there, but can't be removed.
    pub fn remove(&self, path: &Path) -> Result<(), Error> {
        let place = self.path(path);
        let removed = fs::remove_file(&place).and_then(|()| sync_folder(place.parent().unwrap_or(&self.root)));
        absent(removed).map_err(|source| Error::Remove { path: path.to_owned(), source })
    }

    /// Removes a folder with all in it, if it is there.
    ///
    /// # Errors
    /// It is there, but can't be removed.
    pub fn remove_all(&self, path: &Path) -> Result<(), Error> {
        absent(fs::remove_dir_all(self.path(path))).map_err(|source| Error::Remove { path: path.to_owned(), source })
    }

    /// Makes a folder and those above it, and tells which was the first that was missing.
    ///
    /// # Errors
    /// It can't be made.
    pub fn make_folder(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        let missing = path.ancestors().take_while(|folder| !self.exists(folder)).last().map(Path::to_owned);
        let made = fs::create_dir_all(self.path(path));
        made.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(missing)
    }

    /// The names in a folder, sorted; none where there is no folder.
    #[must_use]
    pub fn names(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Runs a program of the host's, in the host's root, to its end; not to that of what it leaves running.
    ///
    /// # Errors
    /// It can't be started, or has not ended after [`PATIENCE`].
    pub fn run(&self, argv: &[&str]) -> Result<Output, Error> {
        let [program, arguments @ ..] = argv else { return Err(Error::NoCommand) };
        let mut command = if self.is_own() {
            Command::new(program)
        } else {
            // This program once more: it changes its root and becomes the other. A child of ours can't without unsafe
            // code.
            let mut command = Command::new("/proc/self/exe");
            command.arg(ENTER).arg(&self.root).arg(program);
            command
        };
        command.args(arguments).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin");
        // systemctl does nothing in another root than pid 1's, which is what this is for.
        command.env("SYSTEMD_IGNORE_CHROOT", "1");
        to_its_end(&mut command).map_err(|source| Error::Run { command: argv.join(" "), source })
    }
}

/// What it says goes into files in memory: at a pipe, a daemon that it leaves running would be waited for as well.
fn to_its_end(command: &mut Command) -> io::Result<Output> {
    let said = || rustix::fs::memfd_create("said", rustix::fs::MemfdFlags::CLOEXEC).map(File::from);
    let (mut stdout, mut stderr) = (said()?, said()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    Ok(Output { status, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? })
}

/// The hidden first argument by which this program enters a root and becomes another: `ENTER ROOT PROGRAM ARGUMENT…`.
pub const ENTER: &str = "enter-host";

/// Enters `root` and becomes the program. Returns only where that fails.
#[must_use]
pub fn enter(root: &Path, argv: &[String]) -> io::Error {
    let Some((program, arguments)) = argv.split_first() else { return io::ErrorKind::InvalidInput.into() };
    if let Err(error) = rustix::process::chroot(root).and_then(|()| rustix::process::chdir("/")) {
        return error.into();
    }
    Command::new(program).args(arguments).exec()
}

/// Has what was renamed or removed in a folder be so after the machine has stopped.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// That nothing is there to remove is no failure.
fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::process::Signal;

    use super::*;

    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        let begun = Instant::now();
        let output = Host::new("/").run(&["sh", "-c", "sleep 60 & echo $!; echo err >&2; exit 3"]).unwrap();
        let left: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(3), &b"err\n"[..]));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn links_lead_where_they_lead_on_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        host.make_folder(Path::new("/real/etc")).unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        symlink("/real/etc", folder.path().join("etc/containerd")).unwrap();
        let file = Path::new("/etc/containerd/config.toml");
        assert_eq!(host.read(file).unwrap(), None);
        host.write(file, &Content::new("version = 2\n")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("real/etc/config.toml")).unwrap(), "version = 2\n");
        assert_eq!(host.read_text(file).unwrap().unwrap(), "version = 2\n");
        assert_eq!(host.names(Path::new("/etc/containerd")), ["config.toml"]);
        host.remove(file).unwrap();
        host.remove(file).unwrap();
        assert!(!host.exists(file));
        symlink("/proc/self/status", folder.path().join("real/etc/config.toml")).unwrap();
        let error = host.read(file).unwrap_err().to_string();
        assert_eq!(error, "read /etc/containerd/config.toml: it is a link to what isn't there");
    }

    #[test]
    fn what_an_interrupted_run_left_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        let (file, temporary) = (Path::new("/f"), folder.path().join(".f.lighter-node"));
        fs::write(folder.path().join("other"), "other").unwrap();
        symlink("other", &temporary).unwrap();
        host.write(file, &Content { mode: 0o640, ..Content::new("x") }).unwrap();
        assert_eq!(host.read(file).unwrap().unwrap().mode, 0o640);
        assert_eq!(fs::read_to_string(folder.path().join("other")).unwrap(), "other");
        assert_eq!(host.names(Path::new("/")), ["f", "other"]);
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_missing_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        assert_eq!(host.make_folder(Path::new("/a/b/c")).unwrap(), Some("/a".into()));
        assert_eq!(host.make_folder(Path::new("/a/b/c")).unwrap(), None);
        let file = Path::new("/a/b/c/f");
        let content = Content { mode: 0o600, ..Content::new("x") };
        host.write(file, &content).unwrap();
        assert_eq!(host.read(file).unwrap().unwrap().mode, 0o600);
        let error = host.write(Path::new("/nowhere/f"), &content).unwrap_err();
        assert!(error.to_string().starts_with("write /nowhere/f"), "{error}");
    }
}
