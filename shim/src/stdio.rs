//! The guest's standard streams: containerd's FIFOs, handed over as they are. Nothing is copied, but for a terminal.
//!
//! The daemon holds the other end of each FIFO. So a client that goes away, or a containerd that restarts, neither
//! ends the guest's input nor breaks its output; and the input ends when the client has closed its end *and* asked for
//! `CloseIO`, as with runc. Instead of FIFOs there may be files, or a [logging program](crate::logger).

use std::{
    fs::{File, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lighter_launch::GuestStdio;
use lighter_oci::{Plan, Program};
use rustix::io::ioctl_fionread;
use tokio::time::{sleep, timeout};

use crate::{
    error::Error,
    logger::{Logged, Logger, Owner},
    sandbox::Size,
    terminal::{self, Socket, Terminal},
};

/// The streams' names, as containerd gives them. Empty means none.
#[derive(Clone, Debug, Default)]
pub(crate) struct StdioPaths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Whose streams they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) paths: &'a StdioPaths,
    pub(crate) owner: Owner<'a>,
}

/// How long what a process printed last may take to reach a client, of a terminal's too.
pub(crate) const LAST: Duration = Duration::from_secs(1);
/// How long a client may take to open a stream of its own making.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long is waited before either is looked for again.
const PAUSE: Duration = Duration::from_millis(1);

/// The daemon's ends.
#[derive(Debug, Default)]
pub(crate) struct HeldStdio {
    stdin: Mutex<Option<File>>,
    outputs: Vec<File>,
    /// Reads them, if it is not a client.
    _logger: Option<Logger>,
}

impl HeldStdio {
    /// Lets the guest's input end.
    pub(crate) fn close_stdin(&self) {
        drop(self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Waits, not for long, until all output was read: containerd gives up a stream that it has not got to read when it is
    /// told of the end.
    async fn drained(&self) {
        let read = async {
            while self.outputs.iter().any(|output| ioctl_fionread(output).is_ok_and(|bytes| bytes > 0)) {
                sleep(PAUSE).await;
            }
        };
        let _ = timeout(LAST, read).await;
    }
}

/// The daemon's side of a process's streams.
#[derive(Debug)]
pub(crate) enum Streams {
    Held(HeldStdio),
    Terminal(Terminal),
}

/// Streams that a runner is about to get.
#[derive(Debug)]
pub(crate) enum Opened {
    Held(HeldStdio),
    /// The daemon's end of a terminal.
    Terminal(OwnedFd),
    /// Where the container will send that end.
    Socket(Socket),
}

impl Streams {
    /// Ends the process's input once the client has closed its end.
    pub(crate) fn close_stdin(&self) {
        match self {
            Self::Held(held) => held.close_stdin(),
            Self::Terminal(terminal) => terminal.close_stdin(),
        }
    }

    /// Changes the size of the terminal of the process `id`.
    pub(crate) fn resize(&self, id: &str, size: Size) -> Result<(), Error> {
        match self {
            Self::Held(_) => Err(Error::NoTerminal(id.to_owned())),
            Self::Terminal(terminal) => terminal.resize(size),
        }
    }

    /// Waits, not for long, until what an ended process printed is on its way.
    pub(crate) async fn drained(&self) {
        match self {
            Self::Held(held) => held.drained().await,
            Self::Terminal(terminal) => terminal.drained().await,
        }
    }
}

impl Opened {
    /// Opens the streams for the runner of a plan's program, and says there what they are. `bundle` is the container's.
    pub(crate) async fn new(
        wanted: Wanted<'_>,
        terminal: bool,
        bundle: &Path,
        plan: &mut Plan,
    ) -> Result<(GuestStdio, Self), Error> {
        match (terminal, plan.program) {
            (false, _) => {
                plan.set_terminal(None);
                let (guest, held) = open(wanted).await?;
                Ok((guest, Self::Held(held)))
            }
            (true, Program::Wasm) => {
                plan.set_terminal(Some(lighter_oci::Terminal::Inherited));
                let (ours, guests) = terminal::open()?;
                let copy = || guests.try_clone().map_err(Error::system("open a terminal"));
                Ok((GuestStdio { stdin: copy()?, stdout: copy()?, stderr: guests }, Self::Terminal(ours)))
            }
            (true, Program::Native) => {
                let socket = Socket::listen(bundle)?;
                plan.set_terminal(Some(lighter_oci::Terminal::Made { socket: socket.path().to_owned() }));
                let none = StdioPaths::default();
                let (guest, _) = open(Wanted { paths: &none, ..wanted }).await?;
                Ok((guest, Self::Socket(socket)))
            }
        }
    }

    /// The daemon's side, once the process is there.
    pub(crate) async fn connect(self, wanted: Wanted<'_>, size: Option<Size>) -> Result<Streams, Error> {
        let ours = match self {
            Self::Held(held) => return Ok(Streams::Held(held)),
            Self::Terminal(ours) => ours,
            Self::Socket(socket) => socket.receive().await?,
        };
        Ok(Streams::Terminal(Terminal::connect(ours, wanted, size).await?))
    }
}

/// Opens all three.
async fn open(Wanted { paths, owner }: Wanted<'_>) -> Result<(GuestStdio, HeldStdio), Error> {
    let (stdin, held_stdin) = open_input(&paths.stdin)?;
    let held_stdin = Mutex::new(held_stdin);
    // One program for both, which containerd names twice.
    if let Some(Logged { writers: [stdout, stderr], readers, logger }) = Logger::start(&paths.stdout, owner).await? {
        let held = HeldStdio { stdin: held_stdin, outputs: readers.into(), _logger: Some(logger) };
        return Ok((GuestStdio { stdin, stdout, stderr }, held));
    }
    let (stdout, held_stdout) = open_output("stdout", &paths.stdout).await?;
    let (stderr, held_stderr) = open_output("stderr", &paths.stderr).await?;
    let outputs = [held_stdout, held_stderr].into_iter().flatten().collect();
    Ok((GuestStdio { stdin, stdout, stderr }, HeldStdio { stdin: held_stdin, outputs, _logger: None }))
}

fn open_input(path: &str) -> Result<(OwnedFd, Option<File>), Error> {
    let failed = |source| Error::OpenStream { stream: "stdin", path: path.to_owned(), source };
    if path.is_empty() {
        return Ok((File::open("/dev/null").map_err(failed)?.into(), None));
    }
    let Some(fifo) = fifo("stdin", path)? else {
        return Ok((File::open(local_path("stdin", path)?).map_err(failed)?.into(), None));
    };
    // With a writer there, opening for reading doesn't block, and the guest sees no end of file before a client came.
    let held = OpenOptions::new().read(true).write(true).open(fifo).map_err(failed)?;
    Ok((File::open(fifo).map_err(failed)?.into(), Some(held)))
}

async fn open_output(stream: &'static str, path: &str) -> Result<(OwnedFd, Option<File>), Error> {
    let failed = |source| Error::OpenStream { stream, path: path.to_owned(), source };
    if path.is_empty() {
        let null = OpenOptions::new().write(true).open("/dev/null").map_err(failed)?;
        return Ok((null.into(), None));
    }
    let Some(fifo) = fifo(stream, path)? else { return Ok((file(stream, path)?.into(), None)) };
    let _client = client(fifo).await;
    // With a reader there, opening for writing doesn't block, and a client that goes away is no broken pipe.
    let held = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(fifo).map_err(failed)?;
    let guest = OpenOptions::new().write(true).open(fifo).map_err(failed)?;
    Ok((guest.into(), Some(held)))
}

/// Waits, not for long, until a client reads, as runc's shim does. One that came after the process's end would wait for a
/// writer for ever. Returns a writer, if it is there, so that its stream does not end before the process has it.
pub(crate) async fn client(fifo: &Path) -> Option<File> {
    let arrived = async {
        loop {
            match OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(fifo) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => sleep(PAUSE).await,
                writer => return writer.ok(),
            }
        }
    };
    timeout(ARRIVAL, arrived).await.ok().flatten()
}

/// Where a stream's FIFO is; `None` where the name is empty, or one of something else.
pub(crate) fn fifo<'a>(stream: &'static str, name: &'a str) -> Result<Option<&'a Path>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    let path = local_path(stream, name)?;
    let failed = |source| Error::OpenStream { stream, path: name.to_owned(), source };
    Ok((path.exists() && path.metadata().map_err(failed)?.file_type().is_fifo()).then_some(path))
}

/// A file that output is appended to.
pub(crate) fn file(stream: &'static str, name: &str) -> Result<File, Error> {
    let path = local_path(stream, name)?;
    let failed = |source| Error::OpenStream { stream, path: name.to_owned(), source };
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)
}

/// A plain path, or one in a `file://` URI, as containerd's log drivers give it.
fn local_path<'a>(stream: &'static str, name: &'a str) -> Result<&'a Path, Error> {
    match name.split_once("://") {
        None => Ok(Path::new(name)),
        Some(("file" | "fifo", path)) => Ok(Path::new(path)),
        Some(_) => Err(Error::StreamScheme { stream, uri: name.to_owned() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        io::{Read, Write},
        path::PathBuf,
        time::Instant,
    };

    use super::*;

    fn fifo_in(folder: &Path) -> PathBuf {
        let path = folder.join("stdout");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    #[tokio::test]
    async fn a_client_that_is_slow_reads_what_an_ended_process_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo_in(folder.path());
        let mut client = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&path).unwrap();
        let (guest, held) = open_output("stdout", path.to_str().unwrap()).await.unwrap();
        let streams = Streams::Held(HeldStdio { outputs: held.into_iter().collect(), ..HeldStdio::default() });
        let begun = Instant::now();
        streams.drained().await;
        assert!(begun.elapsed() < LAST / 2, "there is nothing to wait for");

        File::from(guest).write_all(b"the last words").unwrap();
        let client = tokio::task::spawn_blocking(move || {
            std::thread::sleep(PAUSE * 20);
            let mut read = String::new();
            client.read_to_string(&mut read).unwrap();
            read
        });
        streams.drained().await;
        assert!(begun.elapsed() < LAST, "it was waited for until it was read");
        assert_eq!(client.await.unwrap(), "the last words");
    }

    #[tokio::test]
    async fn a_client_that_is_late_sees_the_end_of_a_process_that_printed_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo_in(folder.path());
        let late = path.clone();
        let client = tokio::task::spawn_blocking(move || {
            std::thread::sleep(PAUSE * 20);
            // Blocks where nobody writes.
            std::fs::read(late).unwrap()
        });
        let (guest, held) = open_output("stdout", path.to_str().unwrap()).await.unwrap();
        drop((guest, held));
        assert_eq!(timeout(LAST, client).await.unwrap().unwrap(), b"");
    }
}
