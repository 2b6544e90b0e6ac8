//! The terminal that a guest's standard streams are.
#![allow(unsafe_code)]

use std::io;

use crate::Error;

/// Makes standard input the controlling terminal of this process, which leads a session of its own: its signals, such as
/// that of Ctrl-C, come here.
///
/// # Errors
/// Standard input is no terminal, or another session's.
pub(crate) fn control() -> Result<(), Error> {
    // SAFETY: the call takes a number, and standard input is open.
    match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
        -1 => Err(Error::Join { operation: "take the terminal", why: io::Error::last_os_error().to_string() }),
        _ => Ok(()),
    }
}
