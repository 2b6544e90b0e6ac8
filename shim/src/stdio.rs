//! The guest's standard streams: containerd's FIFOs, handed over as they are. Nothing is copied.
//!
//! The daemon holds the other end of each FIFO. So a client that attaches late, or a containerd that restarts, neither
//! ends the guest's input nor breaks its output; and the input ends when the client has closed its end *and* asked for
//! `CloseIO`, as with runc.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Mutex, PoisonError},
};

use lighter_launch::GuestStdio;

use crate::error::Error;

/// The streams' names, as containerd gives them. Empty means none.
#[derive(Clone, Debug, Default)]
pub(crate) struct StdioPaths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The daemon's ends.
#[derive(Debug, Default)]
pub(crate) struct HeldStdio {
    stdin: Mutex<Option<File>>,
    _outputs: Vec<File>,
}

impl HeldStdio {
    /// Lets the guest's input end.
    pub(crate) fn close_stdin(&self) {
        drop(self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Opens all three.
pub(crate) fn open(paths: &StdioPaths) -> Result<(GuestStdio, HeldStdio), Error> {
    let (stdin, held_stdin) = open_input(&paths.stdin)?;
    let (stdout, held_stdout) = open_output("stdout", &paths.stdout)?;
    let (stderr, held_stderr) = open_output("stderr", &paths.stderr)?;
    let held = HeldStdio {
        stdin: Mutex::new(held_stdin),
        _outputs: [held_stdout, held_stderr].into_iter().flatten().collect(),
    };
    Ok((GuestStdio { stdin, stdout, stderr }, held))
}

fn open_input(path: &str) -> Result<(OwnedFd, Option<File>), Error> {
    let failed = |source| Error::OpenStream { stream: "stdin", path: path.to_owned(), source };
    if path.is_empty() {
        return Ok((File::open("/dev/null").map_err(failed)?.into(), None));
    }
    let path = local_path("stdin", path)?;
    if !is_fifo(path).map_err(failed)? {
        return Ok((File::open(path).map_err(failed)?.into(), None));
    }
    // With a writer there, opening for reading doesn't block, and the guest sees no end of file before a client came.
    let held = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    Ok((File::open(path).map_err(failed)?.into(), Some(held)))
}

fn open_output(stream: &'static str, path: &str) -> Result<(OwnedFd, Option<File>), Error> {
    let failed = |source| Error::OpenStream { stream, path: path.to_owned(), source };
    if path.is_empty() {
        let null = OpenOptions::new().write(true).open("/dev/null").map_err(failed)?;
        return Ok((null.into(), None));
    }
    let path = local_path(stream, path)?;
    if !path.exists() || !is_fifo(path).map_err(failed)? {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(failed)?;
        return Ok((file.into(), None));
    }
    // With a reader there, opening for writing doesn't block, and a client that goes away is no broken pipe.
    let held = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
    let guest = OpenOptions::new().write(true).open(path).map_err(failed)?;
    Ok((guest.into(), Some(held)))
}

/// A plain path, or one in a `file://` URI, as containerd's log drivers give it.
fn local_path<'a>(stream: &'static str, name: &'a str) -> Result<&'a Path, Error> {
    match name.split_once("://") {
        None => Ok(Path::new(name)),
        Some(("file" | "fifo", path)) => Ok(Path::new(path)),
        Some(_) => Err(Error::StreamScheme { stream, uri: name.to_owned() }),
    }
}

fn is_fifo(path: &Path) -> io::Result<bool> {
    Ok(path.metadata()?.file_type().is_fifo())
}
