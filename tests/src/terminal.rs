//! A command at a terminal, as a person has it: `docker run -it` wants one.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Write},
    ops::Deref,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{Cmd, Output, Running, command::Capture};

/// How long a client may take to begin.
const RAW_WITHIN: Duration = Duration::from_secs(20);

/// A command that runs at a terminal of its own. What it prints, on stdout and stderr alike, is [`Running::stdout`], as the
/// terminal gets it: lines end with CR LF.
pub struct Terminal {
    running: Running,
    master: File,
}

impl Cmd {
    /// Starts it at a new terminal of this size.
    #[track_caller]
    pub fn at_terminal(self, rows: u16, columns: u16) -> Terminal {
        Terminal::start(self, rows, columns).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Terminal {
    fn start(cmd: Cmd, rows: u16, columns: u16) -> Result<Terminal> {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("open a terminal")?;
        grantpt(&master).and_then(|()| unlockpt(&master)).context("unlock a terminal")?;
        let name = ptsname(&master, Vec::new()).context("name a terminal")?;
        let name = OsStr::from_bytes(name.as_bytes());
        // Not to become the terminal of this process.
        let slave = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name);
        let slave = slave.context("open a terminal's other end")?;
        let master = File::from(master);
        resize(&master, rows, columns)?;

        // It makes its standard input the terminal of a session of its own, without which nobody hears of Ctrl-C or a new
        // size. Not the leader of a process group, it replaces itself by the command.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(cmd.command.get_program()).args(cmd.command.get_args()).env("TERM", "xterm");
        let [stdin, stdout] = [slave.try_clone(), slave.try_clone()];
        command.stdin(stdin.context("share a terminal")?).stdout(stdout.context("share a terminal")?).stderr(slave);
        let child = command.spawn().with_context(|| format!("start {}", cmd.line))?;
        // Or the terminal would not end with those who have it.
        drop(command);
        let output = Capture::of(master.try_clone().context("share a terminal")?);
        let nothing = Capture::of(io::empty());
        Ok(Terminal { running: cmd.running(child, None, output, nothing)?, master })
    }

    /// Waits until it takes each key as it comes, or is over. Up to then it is the terminal that echoes, not the container's.
    #[track_caller]
    pub fn wait_until_raw(&self) {
        let deadline = Instant::now() + RAW_WITHIN;
        let echoes =
            || tcgetattr(&self.master).expect("the modes of a terminal").local_modes.contains(LocalModes::ECHO);
        while !self.is_over() && echoes() {
            assert!(Instant::now() < deadline, "it does not take keys: {:?}", self.stdout());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Presses these keys. `\x03` is Ctrl-C, `\x04` Ctrl-D.
    #[track_caller]
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap_or_else(|error| panic!("type {keys:?}: {error}"));
    }

    /// Makes the window another size.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits for its end. Panics when that doesn't come in time.
    #[track_caller]
    pub fn wait(self) -> Output {
        self.running.wait()
    }
}

impl Deref for Terminal {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

fn resize(master: &File, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).context("set the size of a terminal")
}
