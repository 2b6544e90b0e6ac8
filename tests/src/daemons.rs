//! The daemons of a bed: how each is configured, started and known to answer.

use std::{
    fs,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{Bed, Registry, Suite, cri, vm};

pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// The file with containerd's pid, as the bed counts.
pub(crate) const CONTAINERD_PID: &str = "/run/bed/containerd.pid";
/// The folder with one log a daemon.
pub(crate) const LOGS: &str = "/var/log/bed";

/// A daemon that doesn't answer within this will not.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Daemon {
    Containerd,
    Docker,
    Registry(Registry),
}

/// Configuration files: path in the bed and text.
pub(crate) fn configuration(suite: Suite) -> Vec<(&'static str, String)> {
    // The containerd image store is what makes wasm images possible. All else is as Docker comes: with a bridge, in the
    // bed's network namespace.
    let files = [("/etc/docker/daemon.json", r#"{"features":{"containerd-snapshotter":true}}"#)];
    let files = files.into_iter().chain(cri::files()).map(|(path, text)| (path, text.to_owned()));
    files.chain([("/etc/containerd/config.toml", suite.containerd_config())]).collect()
}

/// Starts a daemon by its command line, without single quotes, and waits until it answers.
pub(crate) fn start(bed: &Bed, name: &str, command: &str, answers: impl Fn() -> Result<bool>) -> Result<()> {
    // A session of its own, and pid 1 for a parent: it is not the command's, which is to end.
    let script = format!(
        "mkdir -p /run/bed {LOGS}; \
         setsid -f sh -c 'echo $$ >/run/bed/{name}.pid; exec {command} </dev/null >>{LOGS}/{name}.log 2>&1'",
    );
    let started = bed.sh(&script).try_run()?;
    ensure!(started.status == 0, "start {name}: {started}");
    let deadline = Instant::now() + vm::patience(STARTS_WITHIN);
    while !answers()? {
        if Instant::now() > deadline {
            bail!("{name} of {} does not answer:\n{}", bed.suite(), bed.logs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Daemon::Containerd => "containerd",
            Daemon::Docker => "dockerd",
            Daemon::Registry(registry) => registry.daemon(),
        }
    }

    fn command(self) -> String {
        match self {
            Daemon::Containerd => "containerd".into(),
            Daemon::Docker => "dockerd --containerd /run/containerd/containerd.sock".into(),
            Daemon::Registry(registry) => format!("docker-registry serve {}", registry.configuration_path()),
        }
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(self, bed: &Bed) -> Result<()> {
        start(bed, self.name(), &self.command(), || self.answers(bed))
    }

    fn answers(self, bed: &Bed) -> Result<bool> {
        let listens = |socket| UnixStream::connect(bed.path(socket)).is_ok();
        let succeeds = |argv: &[&str]| bed.cmd(argv).try_run().map(|output| output.status == 0);
        match self {
            Daemon::Containerd => Ok(listens(CONTAINERD_SOCKET) && succeeds(&["ctr", "version"])?),
            Daemon::Docker => Ok(listens("/run/docker.sock") && succeeds(&["docker", "version"])?),
            Daemon::Registry(registry) => {
                let sockets = fs::read_to_string(format!("/proc/{}/net/tcp", bed.init())).unwrap_or_default();
                // As the kernel shows a listener: address and port in hexadecimal, state 0A.
                Ok(sockets.contains(&format!("0100007F:{:04X} 00000000:0000 0A", registry.port())))
            }
        }
    }
}
