//! `lighter-node`: Lighter on a Kubernetes node, by the command line or as a pod of a DaemonSet.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use lighter_node::{
    Error, Host, Node, Report,
    cluster::Cluster,
    daemon::Containerd,
    distribution::{Distribution, Layout},
    host,
    programs::Prefix,
};

/// Exit codes, besides 0 for done or nothing to do and clap's 2 for wrong usage.
mod exit {
    /// It failed, and the node has what it had before.
    pub(super) const FAILED: u8 = 1;
    /// Nothing is installed.
    pub(super) const ABSENT: u8 = 3;
    /// It is installed, but not whole or not known to containerd.
    pub(super) const NOT_READY: u8 = 4;
    /// It failed, and putting things back failed as well.
    pub(super) const NOT_UNDONE: u8 = 5;
    /// Another installer is at work: `EX_TEMPFAIL` of sysexits.h.
    pub(super) const BUSY: u8 = 75;
}

/// Installs Lighter on this node, upgrades it, and takes it away again.
///
///   lighter-node install --from /usr/local/bin     programs below /opt/lighter, handlers in containerd's configuration
///   lighter-node status                            what there is, and whether containerd knows it
///   lighter-node upgrade --from /tmp/new           new pods by new programs; pods that run keep theirs
///   lighter-node uninstall                         every file as it was
///
/// It finds the containerd of kubeadm, kind, k3s, RKE2, k0s and MicroK8s, adds handlers to its configuration (a drop-in
/// where there can be one), asks containerd what it makes of it, restarts it only if something changed, and runs a pod
/// by each handler. Whatever fails is undone. It can be interrupted at any time: the next run goes on from there.
///
/// In a cluster, k8s/base does this on every node; see docs/kubernetes.md.
///
/// Exit codes: 0 done or nothing to do, 1 failed and undone, 2 wrong usage, 3 not installed, 4 installed but not ready,
/// 5 failed and could not be undone, 75 another installer is at work.
#[derive(Parser)]
#[command(name = "lighter-node", version, verbatim_doc_comment, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Where the node and its containerd are.
#[derive(Args)]
struct Place {
    /// The folder that the node's root is mounted at
    #[arg(long, global = true, default_value = "/", value_name = "FOLDER")]
    host_root: PathBuf,
    /// The node's folder that everything goes into; of Lighter's own, writable, and allowing programs
    #[arg(long, global = true, default_value = "/opt/lighter", value_name = "FOLDER")]
    prefix: PathBuf,
    /// Whose containerd it is, where that can't be seen
    #[arg(long, global = true)]
    distribution: Option<Named>,
    /// A line for the node's shell that restarts containerd, in place of `systemctl restart`
    #[arg(long, global = true, value_name = "LINE")]
    restart_command: Option<String>,
    /// containerd's socket, where it is not the distribution's
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Install, upgrade or repair: afterwards the node has these programs, and handlers that work
    Install(Install),
    /// As install, but only where Lighter is installed
    Upgrade(Install),
    /// What is installed, and whether it is whole
    Status,
    /// Take it away; containerd's configuration is what it was, byte for byte. What pods left in /var/lib/lighter stays
    Uninstall {
        /// Also where pods still run by it. They can't be entered or ended in order then
        #[arg(long)]
        force: bool,
    },
    /// Do nothing until SIGTERM: what a DaemonSet's pod does when all is done
    #[command(hide = true)]
    Wait,
}

#[derive(Args)]
struct Install {
    /// The folder with the programs, as `make install` filled it; by default the one of this program
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// The handler's name; those of the engines have theirs behind it, as in lighter-wamr
    #[arg(long, default_value = "lighter", value_name = "NAME", value_parser = handler)]
    handler: String,
}

/// [`Distribution`], as the command line takes it.
#[derive(Clone, Copy, ValueEnum)]
enum Named {
    Containerd,
    Kind,
    K3s,
    Rke2,
    K0s,
    Microk8s,
}

impl From<Named> for Distribution {
    fn from(named: Named) -> Self {
        match named {
            Named::Containerd => Self::Containerd,
            Named::Kind => Self::Kind,
            Named::K3s => Self::K3s,
            Named::Rke2 => Self::Rke2,
            Named::K0s => Self::K0s,
            Named::Microk8s => Self::MicroK8s,
        }
    }
}

/// A RuntimeClass's handler is a DNS label. Source: Kubernetes, `node.k8s.io/v1` RuntimeClass.
fn handler(name: &str) -> Result<String, String> {
    let fits = !name.is_empty()
        && name.len() <= 50
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits { Ok(name.to_owned()) } else { Err("takes up to 50 small letters, digits and hyphens".to_owned()) }
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().collect();
    // This program, started by itself to become another in the host's root.
    if let [_, enter, root, argv @ ..] = words.as_slice()
        && enter == host::ENTER
    {
        let error = host::enter(Path::new(root), argv);
        eprintln!("enter {root} and run {}: {error}", argv.first().map_or("nothing", String::as_str));
        return ExitCode::from(127);
    }
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.context("start event loop").and_then(|runtime| runtime.block_on(run(&arguments))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lighter-node: {error:#}");
            ExitCode::from(error.downcast_ref().map_or(exit::FAILED, code))
        }
    }
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Busy(_) => exit::BUSY,
        Error::NotUndone { .. } => exit::NOT_UNDONE,
        Error::NotInstalled(_) => exit::ABSENT,
        Error::Read { .. }
        | Error::Write { .. }
        | Error::Remove { .. }
        | Error::Run { .. }
        | Error::NoCommand
        | Error::Prefix { .. }
        | Error::Foreign(_)
        | Error::NoPrograms { .. }
        | Error::Program { .. }
        | Error::NoContainerd
        | Error::Ambiguous(_)
        | Error::Broken { .. }
        | Error::NoCri(_)
        | Error::Version { .. }
        | Error::TooOld(_)
        | Error::Taken { .. }
        | Error::Refused(_)
        | Error::Lost(_)
        | Error::Raced(_)
        | Error::Unseen { .. }
        | Error::Journal { .. }
        | Error::Restart { .. }
        | Error::NoRestart
        | Error::Silent { .. }
        | Error::Handler { .. }
        | Error::InUse(_)
        | Error::Kubernetes { .. } => exit::FAILED,
    }
}

async fn run(arguments: &Arguments) -> Result<ExitCode> {
    if matches!(arguments.command, Command::Wait) {
        return wait().await;
    }
    let cluster = cluster()?;
    let done = act(arguments, cluster.as_ref()).await;
    if let (Err(error), Some(cluster)) = (&done, &cluster)
        && let Err(untold) = cluster.failed(error).await
    {
        eprintln!("lighter-node: {untold}");
    }
    let (report, code) = done?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report));
    }
    Ok(ExitCode::from(code))
}

async fn act(arguments: &Arguments, cluster: Option<&Cluster>) -> Result<(Report, u8), Error> {
    let place = &arguments.place;
    let host = Host::new(&place.host_root);
    let distribution = match place.distribution {
        Some(named) => named.into(),
        None => Distribution::detect(&host)?,
    };
    let mut layout = Layout::of(distribution);
    if let Some(socket) = &place.socket {
        layout.socket.clone_from(socket);
    }
    let daemon = Containerd::new(host.clone(), layout.clone(), place.restart_command.clone());
    let step = |what: &str| eprintln!("lighter-node: {what}");
    let node = Node { host, layout, daemon, prefix: Prefix(place.prefix.clone()), step: &step };
    match &arguments.command {
        Command::Install(install) | Command::Upgrade(install) => {
            if matches!(arguments.command, Command::Upgrade(_)) && !node.is_installed()? {
                return Err(Error::NotInstalled(place.prefix.clone()));
            }
            let from = install.from.clone().map_or_else(own_folder, Ok)?;
            let report = node.install(&from, &install.handler).await?;
            if let Some(cluster) = cluster {
                cluster.ready(&report).await?;
            }
            Ok((report, 0))
        }
        Command::Status => {
            let report = node.status().await?;
            let code = match (&report.version, report.ready) {
                (_, true) => 0,
                (None, _) if !node.is_installed()? => exit::ABSENT,
                _ => exit::NOT_READY,
            };
            Ok((report, code))
        }
        Command::Uninstall { force } => {
            let handlers = node.status().await?.handlers;
            // Before: no pod must come for handlers that are about to go.
            if let Some(cluster) = cluster {
                cluster.leaving(&handlers).await?;
            }
            let report = node.uninstall(*force).await?;
            if let Some(cluster) = cluster {
                cluster.removed(&report).await?;
            }
            Ok((report, 0))
        }
        Command::Wait => Err(Error::NoCommand),
    }
}

/// The cluster's API, where this is one of its pods.
fn cluster() -> Result<Option<Cluster>, Error> {
    // Fails where there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Cluster::of_pod()
}

fn own_folder() -> Result<PathBuf, Error> {
    let own = env::current_exe().map_err(|source| Error::Read { path: "/proc/self/exe".into(), source })?;
    Ok(own.parent().map(Path::to_owned).unwrap_or_default())
}

async fn wait() -> Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// For people.
fn text(report: &Report) -> String {
    let state = match (&report.version, report.ready) {
        (Some(version), true) => format!("Lighter {version} is ready"),
        (Some(version), false) => format!("Lighter {version} is NOT ready"),
        (None, _) if report.handlers.is_empty() => "Lighter is not installed".to_owned(),
        (None, _) => "Lighter is NOT ready".to_owned(),
    };
    let mut text = format!("{state} ({})\n", report.distribution);
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("  {name:<9} {value}\n");
        }
    };
    line("handlers", report.handlers.join(", "));
    line("files", report.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "));
    line("versions", report.versions.join(", "));
    line("pods", if report.handlers.is_empty() { String::new() } else { report.pods.to_string() });
    for note in &report.notes {
        line("note", note.clone());
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        for name in ["lighter", "a-1"] {
            assert!(handler(name).is_ok());
        }
        for name in ["", "-a", "a-", "A", "a.b", &"a".repeat(51)] {
            assert!(handler(name).is_err(), "{name}");
        }
    }
}
