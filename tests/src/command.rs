//! Commands in a bed: each ends within its time, or fails the test saying what ran.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{enter, vm};

/// How long a command may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a pipe may stay open after its command's end, held by something that it left behind.
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// A command to run in a bed.
#[must_use = "does nothing until `run`"]
pub struct Cmd {
    pub(crate) command: Command,
    /// As a person would type it.
    pub(crate) line: String,
    stdin: Vec<u8>,
    timeout: Duration,
}

impl Cmd {
    pub(crate) fn new(testbed: &OsStr, init: u32, argv: &[OsString]) -> Self {
        let mut command = Command::new(testbed);
        command.arg("exec").arg(init.to_string()).arg("--").args(argv);
        Cmd::of(command, argv)
    }

    /// A program of the host's, with our environment.
    pub(crate) fn of_host(argv: &[OsString]) -> Self {
        let mut command = Command::new(argv.first().map_or(OsStr::new(""), OsString::as_os_str));
        command.args(argv.iter().skip(1));
        Cmd::of(command, argv)
    }

    fn of(command: Command, argv: &[OsString]) -> Self {
        let line = argv.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Cmd { command, line, stdin: Vec::new(), timeout: vm::patience(TIMEOUT) }
    }

    /// What it reads, in place of an end of file at once.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// In place of 60 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = vm::patience(timeout);
        self
    }

    /// Runs it to its end. Panics when it doesn't end in time.
    #[track_caller]
    pub fn run(self) -> Output {
        self.try_run().unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// As [`Cmd::run`], for those who are no tests.
    ///
    /// # Errors
    /// When it can't be started or doesn't end in time.
    pub fn try_run(mut self) -> Result<Output> {
        let stdin = std::mem::take(&mut self.stdin);
        let mut running = self.try_spawn()?;
        let mut pipe = running.stdin.take().context("take its stdin")?;
        // In a thread, for it may answer before it has read all. It may also end before that.
        thread::spawn(move || pipe.write_all(&stdin));
        running.try_wait()
    }

    /// Starts it and returns; its stdin stays open until [`Running::close_stdin`].
    #[track_caller]
    pub fn spawn(self) -> Running {
        self.try_spawn().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn try_spawn(mut self) -> Result<Running> {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that all of it can be killed at once, and Ctrl-C leaves it to the bed's end.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.line))?;
        let stdin = child.stdin.take().map(|pipe| Box::new(pipe) as Box<dyn Write + Send>);
        let stdout = Capture::of(child.stdout.take().context("take its stdout")?);
        let stderr = Capture::of(child.stderr.take().context("take its stderr")?);
        self.running(child, stdin, stdout, stderr)
    }

    /// What was started, as the leader of a process group of its own.
    pub(crate) fn running(
        self,
        child: Child,
        stdin: Option<Box<dyn Write + Send>>,
        stdout: Capture,
        stderr: Capture,
    ) -> Result<Running> {
        let group = Pid::from_raw(i32::try_from(child.id()).context("pid")?);
        let (sender, exit) = mpsc::channel();
        thread::spawn(move || wait_and_tell(child, &sender));
        let deadline = Instant::now() + self.timeout;
        let Cmd { line, timeout, .. } = self;
        Ok(Running { line, group, stdin, stdout, stderr, exit, deadline, timeout, over: false })
    }
}

fn wait_and_tell(mut child: Child, sender: &mpsc::Sender<Result<i32>>) {
    let status = child.wait().context("wait for a command").map(enter::exit_code);
    // The receiver may have given up.
    let _ = sender.send(status);
}

/// A command that runs in a bed. Killed when dropped.
pub struct Running {
    line: String,
    group: Pid,
    stdin: Option<Box<dyn Write + Send>>,
    stdout: Capture,
    stderr: Capture,
    exit: mpsc::Receiver<Result<i32>>,
    deadline: Instant,
    timeout: Duration,
    over: bool,
}

impl Running {
    /// Writes to its stdin.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap_or_else(|| panic!("{}: its stdin was closed", self.line));
        let written = stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush());
        written.unwrap_or_else(|error| panic!("write to {}: {error}", self.line));
    }

    /// Lets it read an end of file.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until its stdout holds `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        if !self.prints(text) {
            panic!("{} did not print {text:?}; {}", self.line, self.streams());
        }
    }

    /// Waits until its stdout holds `text` or can hold no more, and tells whether it does.
    pub fn prints(&self, text: &str) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.stdout.wait_until(left, |stream| stream.text().contains(text))
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Whether nothing more will come from its stdout.
    pub fn is_over(&self) -> bool {
        self.stdout.stream().ended
    }

    /// Waits for its end. Panics when that doesn't come in time.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        self.close_stdin();
        self.try_wait().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn try_wait(&mut self) -> Result<Output> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let status = match self.exit.recv_timeout(left) {
            Ok(status) => status?,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("{} did not end within {:?}; {}", self.line, self.timeout, self.streams())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(anyhow!("lost the thread that waits")),
        };
        self.over = true;
        for stream in [&self.stdout, &self.stderr] {
            stream.wait_until(PIPE_GRACE, |stream| stream.ended);
        }
        Ok(Output { line: self.line.clone(), status, stdout: self.stdout.text(), stderr: self.stderr.text() })
    }

    fn streams(&self) -> String {
        format!("stdout: {:?}, stderr: {:?}", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            // It may have ended meanwhile.
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

/// What a command left.
#[derive(Debug)]
pub struct Output {
    line: String,
    /// Exit code, or 128 + n after signal n.
    pub status: i32,
    /// As text; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// As text; bytes that are no UTF-8 are replaced.
    pub stderr: String,
}

impl Output {
    /// Panics unless it ended with `status`.
    #[track_caller]
    pub fn expect(self, status: i32) -> Output {
        assert!(self.status == status, "expected exit code {status}\n{self}");
        self
    }

    /// Panics unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.expect(0)
    }
}

/// With a precision, so many characters of each stream.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { line, status, stdout, stderr } = self;
        let most = f.precision().unwrap_or(usize::MAX);
        let [stdout, stderr] = [stdout, stderr].map(|stream| stream.chars().take(most).collect::<String>());
        write!(f, "$ {line}\n--- stdout\n{stdout}--- stderr\n{stderr}--- exit code {status}")
    }
}

/// A pipe or a terminal that a thread reads to its end.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<(Mutex<Stream>, Condvar)>);

#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Capture {
    pub(crate) fn of(mut pipe: impl Read + Send + 'static) -> Capture {
        let capture = Capture::default();
        let to = capture.clone();
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                // An error can only mean that there is no more to come.
                let read = pipe.read(&mut buffer).unwrap_or(0);
                let mut stream = to.stream();
                stream.bytes.extend_from_slice(&buffer[..read]);
                stream.ended = read == 0;
                to.0.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        capture
    }

    fn stream(&self) -> MutexGuard<'_, Stream> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.stream().text()
    }

    /// Whether `condition` came true within `timeout`; an end of the pipe ends the wait as well.
    fn wait_until(&self, timeout: Duration, condition: impl Fn(&Stream) -> bool) -> bool {
        let waiting = |stream: &mut Stream| !stream.ended && !condition(stream);
        let (stream, _) =
            self.0.1.wait_timeout_while(self.stream(), timeout, waiting).unwrap_or_else(PoisonError::into_inner);
        condition(&stream)
    }
}
