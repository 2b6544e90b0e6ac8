use std::{io, path::PathBuf};

/// Why a container could not be created, started or signalled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runner's executable can't be run.
    #[error("run {path}: {source}; is Lighter installed completely?")]
    RunRunner {
        /// The executable.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The runner said what is wrong.
    #[error("{0}")]
    Guest(String),
    /// The runner's libraries are missing, or not of the version that it needs. Says what to install.
    #[error("{0}")]
    Libraries(String),
    /// It was killed, or it crashed: both leave no message.
    #[error("the runner ended without a message, with exit code {status}; it was killed or crashed{said}")]
    RunnerDied {
        /// Its exit code, or 128 + n after signal n.
        status: u32,
        /// What it left on its standard error, in brackets, or nothing.
        said: String,
    },
    /// The init is gone, and its guest never ran.
    #[error(
        "the container's init ended before its guest ran; it was killed, or its memory limit is too small for the runner"
    )]
    InitDied,
    /// There is nobody to signal any more.
    #[error("process already finished")]
    Finished,
    /// One of the host's programs that a container's spec has run at a point of its life did not do its work.
    #[error("{point} hook {path}: {why}")]
    Hook {
        /// Such as `poststart`.
        point: &'static str,
        /// The program.
        path: PathBuf,
        /// How it ended, and what it said.
        why: String,
    },
    /// A folder of a container's cgroup can't be removed.
    #[error("cgroup {path}: {source}")]
    Cgroup {
        /// The folder.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{operation}: {source}")]
    System {
        /// Such as `signal start`.
        operation: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

impl Error {
    /// A failed system call.
    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}
