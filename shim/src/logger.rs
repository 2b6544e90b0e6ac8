//! Logging programs: where a process's output is named `binary://PROGRAM?KEY=VALUE`, as nerdctl names it.
//!
//! The program gets the key and the value as arguments, reads the process's stdout from descriptor 3 and its stderr from 4,
//! and closes 5 when it is ready. Source: containerd's `core/runtime/v2/README.md`, "Logging"; its runc shim's `process/io.go`.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use lighter_launch::Child;
use percent_encoding::percent_decode_str;
use rustix::process::Signal;
use tokio::{io::AsyncReadExt, net::unix::pipe, runtime::Handle, time::timeout};

use crate::error::Error;

/// Whose output is logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// The container's id, or that of a process which was added to it.
    pub(crate) id: &'a str,
    /// containerd's namespace.
    pub(crate) namespace: &'a str,
}

/// How long a program may take until it is ready. runc's shim waits for ever.
const READY: Duration = Duration::from_secs(10);
/// How long a program that was asked to end may take to write what it has, as under runc.
const LAST: Duration = Duration::from_secs(12);

/// A program at work. It is asked to end when this is dropped.
#[derive(Debug)]
pub(crate) struct Logger(Option<Child>);

/// The two ends of each stream.
#[derive(Debug)]
pub(crate) struct Logged {
    /// What the process writes to: its stdout and its stderr.
    pub(crate) writers: [OwnedFd; 2],
    /// What the program reads.
    pub(crate) readers: [File; 2],
    pub(crate) logger: Logger,
}

impl Logger {
    /// Starts the program that a stream's name asks for, if it asks for one.
    pub(crate) async fn start(name: &str, owner: Owner<'_>) -> Result<Option<Logged>, Error> {
        let Some((program, arguments)) = parse(name) else { return Ok(None) };
        let failed = |source| Error::Logger { program: program.clone(), source };
        let pipe = || io::pipe().map_err(failed);
        let ((out_reader, out_writer), (err_reader, err_writer), (ready, unready)) = (pipe()?, pipe()?, pipe()?);
        let (out_reader, err_reader) = (File::from(OwnedFd::from(out_reader)), File::from(OwnedFd::from(err_reader)));
        let theirs = |file: &File| file.try_clone().map(OwnedFd::from).map_err(failed);
        let mapping = |parent_fd, child_fd| FdMapping { parent_fd, child_fd };
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env_clear()
            .envs([("CONTAINER_ID", owner.id), ("CONTAINER_NAMESPACE", owner.namespace)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .fd_mappings(vec![
                mapping(theirs(&out_reader)?, 3),
                mapping(theirs(&err_reader)?, 4),
                mapping(unready.into(), 5),
            ])
            .map_err(|error| failed(io::Error::other(error)))?;
        let child = command.spawn().map_err(failed)?;
        // It has its own of each, and nobody else may keep one.
        drop(command);
        let child = Child::new(child.id().cast_signed()).map_err(|error| failed(io::Error::other(error)))?;
        let logger = Self(Some(child));
        let mut ready = pipe::Receiver::from_owned_fd(ready.into()).map_err(failed)?;
        match timeout(READY, ready.read(&mut [0])).await {
            Ok(read) => read.map_err(failed)?,
            Err(_) => return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "it did not say that it is ready"))),
        };
        Ok(Some(Logged { writers: [out_writer.into(), err_writer.into()], readers: [out_reader, err_reader], logger }))
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        let (Some(child), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            let _ = child.kill(Signal::TERM);
            if timeout(LAST, child.exited()).await.is_err() {
                let _ = child.kill(Signal::KILL);
                child.exited().await;
            }
        });
    }
}

/// The program and its arguments.
fn parse(name: &str) -> Option<(PathBuf, Vec<String>)> {
    let (path, query) = name.strip_prefix("binary://").map(|rest| rest.split_once('?').unwrap_or((rest, "")))?;
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let arguments = form_urlencoded::parse(query.as_bytes())
        .flat_map(|(key, value)| [key.into_owned(), value.into_owned()])
        .collect();
    Some((path.into(), arguments))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    const OWNER: Owner = Owner { id: "c1", namespace: "k8s.io" };

    #[test]
    fn names_of_streams() {
        let table = [
            ("", None),
            ("/run/containerd/fifo/1/c-stdout", None),
            ("file:///var/log/c", None),
            ("binary:///usr/bin/logger", Some(("/usr/bin/logger", vec![]))),
            (
                "binary:///usr/bin/nerdctl?_NERDCTL_INTERNAL_LOGGING=%2Fvar%2Flib%2Fnerdctl%2F1935db59",
                Some(("/usr/bin/nerdctl", vec!["_NERDCTL_INTERNAL_LOGGING", "/var/lib/nerdctl/1935db59"])),
            ),
            ("binary:///a%20b?x", Some(("/a b", vec!["x", ""]))),
        ];
        for (name, expected) in table {
            let parsed = parse(name);
            let parsed = parsed.as_ref().map(|(program, arguments)| (program.to_str().unwrap(), arguments));
            let expected = expected
                .map(|(program, arguments)| (program, arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()));
            assert_eq!(parsed, expected.as_ref().map(|(program, arguments)| (*program, arguments)), "{name}");
        }
    }

    #[tokio::test]
    async fn a_program_gets_both_streams_and_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = folder.path().join("logger");
        let text = "#!/bin/sh\nexec >\"$2\"; echo \"$CONTAINER_NAMESPACE $CONTAINER_ID $1\"; exec 5>&-\n\
                    /bin/cat <&3; /bin/cat <&4; echo end\n";
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let name = format!("binary://{}?log={}", script.display(), log.display());
        let logged = Logger::start(&name, OWNER).await.unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "k8s.io c1 log\n", "it is ready");
        for (writer, text) in logged.writers.into_iter().zip(["out\n", "err\n"]) {
            File::from(writer).write_all(text.as_bytes()).unwrap();
        }
        let Logger(child) = &logged.logger;
        assert_eq!(child.as_ref().unwrap().exited().await.status, 0);
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "k8s.io c1 log\nout\nerr\nend\n");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = Logger::start("binary:///no/such/logger", OWNER).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/logger"), "{error}");
    }
}
