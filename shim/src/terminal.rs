//! The daemon's side of a terminal: what its client types goes in, what the guest prints comes out.
//!
//! A WebAssembly guest gets a terminal of the host's, of which it sees nothing but the stream. A native program looks for
//! its own in `/dev/pts`, so libcontainer makes it there and sends the other end to a [`Socket`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::unix::pipe,
    sync::watch,
    task::JoinHandle,
};

use crate::{
    error::Error,
    logger::{Logged, Logger},
    sandbox::Size,
    stdio::{self, Wanted},
};

/// How long a container that stands may take to hand over its terminal.
const HANDOVER: Duration = Duration::from_secs(5);
/// Bytes that are copied at once: what the kernel's line discipline holds.
const PIECE: usize = 4096;

/// A terminal that is connected to its client's streams.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: Arc<AsyncFd<File>>,
    /// A writer of the client's, so that its input ends when the client says so and not when it goes away.
    held: std::sync::Mutex<Option<File>>,
    input: Option<JoinHandle<()>>,
    printed: watch::Receiver<bool>,
    /// Takes what is printed, if it is not a client.
    _logger: Option<Logger>,
}

/// Makes a terminal of the host's. Returns the daemon's end and the guest's.
pub(crate) fn open() -> Result<(OwnedFd, OwnedFd), Error> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let open = || {
        let master = openpt(flags)?;
        unlockpt(&master)?;
        let guest = ioctl_tiocgptpeer(&master, flags)?;
        Ok((master, guest))
    };
    open().map_err(Error::system::<rustix::io::Errno>("make a terminal"))
}

/// Waits for the terminal that a container makes.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Listens in a container's bundle.
    pub(crate) fn listen(bundle: &Path) -> Result<Self, Error> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let failed = Error::system::<io::Error>("listen for a terminal");
        let name = format!("terminal-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // By descriptor: a folder's path may be longer than a socket's name may be.
        let folder = File::open(bundle).map_err(&failed)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())).map_err(&failed)?;
        listener.set_nonblocking(true).map_err(&failed)?;
        Ok(Self { path: bundle.join(name), listener })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The daemon's end of the terminal, once the container stands.
    pub(crate) async fn receive(self) -> Result<OwnedFd, Error> {
        let failed = Error::system::<io::Error>("receive a terminal");
        let listener = self.listener.try_clone().and_then(tokio::net::UnixListener::from_std).map_err(&failed)?;
        let received = tokio::time::timeout(HANDOVER, async {
            let (stream, _) = listener.accept().await?;
            stream.async_io(Interest::READABLE, || receive_descriptor(&stream)).await
        });
        received.await.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(&failed)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The bundle's folder goes with the container.
        let _ = fs::remove_file(&self.path);
    }
}

/// Source: unix(7), `SCM_RIGHTS`.
fn receive_descriptor(stream: &tokio::net::UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; PIECE];
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other("it sent no descriptor"))
}

impl Terminal {
    /// Connects the daemon's end to the client's streams.
    pub(crate) async fn connect(master: OwnedFd, wanted: Wanted<'_>, size: Option<Size>) -> Result<Self, Error> {
        let failed = Error::system::<io::Error>("connect a terminal");
        if let Some(size) = size {
            set_size(&master, size).map_err(&failed)?;
        }
        let flags = fcntl_getfl(&master).map_err(|error| failed(error.into()))?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let master = Arc::new(async_fd(File::from(master)).map_err(&failed)?);
        let (sink, logger) = Sink::open(wanted).await?;
        let paths = wanted.paths;
        let (done, printed) = watch::channel(false);
        let output = Arc::clone(&master);
        tokio::spawn(async move {
            if let Err(error) = print(&output, sink).await {
                log::debug!("a terminal's output: {error}");
            }
            done.send_replace(true);
        });
        let (input, held) = match stdio::fifo("stdin", &paths.stdin)? {
            None => (None, None),
            Some(path) => {
                let failed = |source| Error::OpenStream { stream: "stdin", path: paths.stdin.clone(), source };
                let held = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
                let typed = pipe::OpenOptions::new().open_receiver(path).map_err(failed)?;
                (Some(tokio::spawn(enter(typed, Arc::clone(&master)))), Some(held))
            }
        };
        Ok(Self { master, held: std::sync::Mutex::new(held), input, printed, _logger: logger })
    }

    /// Lets the input end. A terminal has no end of file: what is typed later has nobody to type it.
    pub(crate) fn close_stdin(&self) {
        drop(self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
    }

    pub(crate) fn resize(&self, size: Size) -> Result<(), Error> {
        set_size(self.master.get_ref(), size).map_err(Error::system("resize a terminal"))
    }

    /// Waits, not for long, until what was printed has reached the client. For when the last process that prints has ended.
    pub(crate) async fn drained(&self) {
        let mut printed = self.printed.clone();
        let _ = tokio::time::timeout(stdio::LAST, printed.wait_for(|printed| *printed)).await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

fn set_size(terminal: impl std::os::fd::AsFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

#[allow(unsafe_code)]
fn async_fd(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` gives the same open descriptor out for as long as it lives, and `AsyncFd` owns it.
    unsafe { AsyncFd::register(file) }.map_err(Into::into)
}

/// Copies what is printed until every process has closed the terminal.
async fn print(master: &AsyncFd<File>, mut sink: Sink) -> io::Result<()> {
    let mut piece = [0; PIECE];
    loop {
        let read = master.async_io(Interest::READABLE, |mut file| file.read(&mut piece)).await;
        match read {
            // So Linux says that nobody has it open any more.
            Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => return Ok(()),
            Ok(0) => return Ok(()),
            read => sink.write(&piece[..read?]).await?,
        }
    }
}

/// Copies what is typed until the client ends it.
async fn enter(mut typed: pipe::Receiver, master: Arc<AsyncFd<File>>) {
    let mut piece = [0; PIECE];
    while let Ok(read @ 1..) = typed.read(&mut piece).await {
        let mut rest = &piece[..read];
        while !rest.is_empty() {
            match master.async_io(Interest::WRITABLE, |mut file| file.write(rest)).await {
                Ok(written) => rest = &rest[written..],
                Err(_) => return,
            }
        }
    }
}

/// Where output goes.
enum Sink {
    Fifo(pipe::Sender),
    File(File),
    Nowhere,
}

impl Sink {
    async fn open(Wanted { paths, owner }: Wanted<'_>) -> Result<(Self, Option<Logger>), Error> {
        let name = &paths.stdout;
        let failed = |source| Error::OpenStream { stream: "stdout", path: name.clone(), source };
        if let Some(Logged { writers: [stdout, _], logger, .. }) = Logger::start(name, owner).await? {
            return Ok((Self::Fifo(pipe::Sender::from_owned_fd(stdout).map_err(failed)?), Some(logger)));
        }
        let sink = match stdio::fifo("stdout", name)? {
            // With a reader of its own: a client that goes away is no broken pipe.
            Some(path) => {
                let _client = stdio::client(path).await;
                Self::Fifo(pipe::OpenOptions::new().read_write(true).open_sender(path).map_err(failed)?)
            }
            None if name.is_empty() => Self::Nowhere,
            None => Self::File(stdio::file("stdout", name)?),
        };
        Ok((sink, None))
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Fifo(fifo) => fifo.write_all(bytes).await,
            Self::File(file) => file.write_all(bytes),
            Self::Nowhere => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{logger::Owner, stdio::StdioPaths};

    #[tokio::test]
    async fn what_is_typed_and_what_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let paths = StdioPaths { stdin: path("stdin"), stdout: path("stdout"), stderr: String::new() };
        for fifo in [&paths.stdin, &paths.stdout] {
            nix::unistd::mkfifo(Path::new(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        // Before the daemon, as every client does.
        let mut client = pipe::OpenOptions::new().open_receiver(&paths.stdout).unwrap();
        let (master, guest) = open().unwrap();
        let size = Size { columns: 90, rows: 30 };
        let wanted = Wanted { paths: &paths, owner: Owner { id: "c", namespace: "default" } };
        let terminal = Terminal::connect(master, wanted, Some(size)).await.unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&guest).unwrap().ws_col, 90);
        terminal.resize(Size { columns: 100, rows: 30 }).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&guest).unwrap().ws_col, 100);

        let mut keys = OpenOptions::new().write(true).open(&paths.stdin).unwrap();
        keys.write_all(b"typed\n").unwrap();
        let mut guest = File::from(guest);
        let (guest, line) = tokio::task::spawn_blocking(move || {
            let mut line = [0; 64];
            let read = guest.read(&mut line).unwrap();
            guest.write_all(b"printed\n").unwrap();
            (guest, line[..read].to_vec())
        })
        .await
        .unwrap();
        assert_eq!(line, b"typed\n");
        drop(guest);
        terminal.drained().await;
        let mut seen = String::new();
        client.read_to_string(&mut seen).await.unwrap();
        // The first is the echo.
        assert_eq!(seen, "typed\r\nprinted\r\n");
    }

    #[tokio::test]
    async fn a_socket_receives_a_terminal_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::listen(folder.path()).unwrap();
        let path = socket.path().to_owned();
        let client = path.clone();
        let sent = tokio::task::spawn_blocking(move || {
            let (master, guest) = open().unwrap();
            let stream = std::os::unix::net::UnixStream::connect(client).unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
            let descriptors = [std::os::fd::AsFd::as_fd(&master)];
            assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors)));
            let name = [io::IoSlice::new(b"/dev/ptmx")];
            rustix::net::sendmsg(&stream, &name, &mut control, rustix::net::SendFlags::empty()).unwrap();
            guest
        });
        let master = socket.receive().await.unwrap();
        assert!(rustix::termios::isatty(&master));
        assert!(!path.exists());
        drop(sent.await.unwrap());
    }
}
