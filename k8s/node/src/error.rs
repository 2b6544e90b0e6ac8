//! What can go wrong, named by what was being done.

use std::{io, path::PathBuf};

/// Why a node is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the host's.
    #[error("read {path}: {source}")]
    Read {
        /// As the host knows it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder of the host's.
    #[error("write {path}: {source}")]
    Write {
        /// As the host knows it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or folder of the host's.
    #[error("remove {path}: {source}")]
    Remove {
        /// As the host knows it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A program of the host's.
    #[error("run {command} on the host: {source}")]
    Run {
        /// Words, with spaces between.
        command: String,
        /// What the system says.
        source: io::Error,
    },
    /// A restart command of no words.
    #[error("the command is empty")]
    NoCommand,
    /// The folder that everything goes into.
    #[error(
        "the folder {path} can't be written to: {source}; choose another with --prefix, on a file system that is writable and allows programs"
    )]
    Prefix {
        /// The prefix.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder with things in it that would be written over.
    #[error("{0} is there and not ours; choose a folder of its own with --prefix")]
    Foreign(PathBuf),
    /// Another installer holds the lock.
    #[error("another lighter-node is at work on this node, since {0} seconds; try again when it is done")]
    Busy(u64),
    /// What is to be installed.
    #[error("{folder} holds no {name}: give --from the folder that `make install` filled")]
    NoPrograms {
        /// Where it was looked for.
        folder: PathBuf,
        /// What was missing.
        name: &'static str,
    },
    /// What was installed does not run.
    #[error(
        "{program} does not run on this node: {why}; nothing was changed. The prefix must allow programs, and they must be built for this node"
    )]
    Program {
        /// Its path.
        program: PathBuf,
        /// What it or the system says.
        why: String,
    },
    /// No containerd.
    #[error(
        "no containerd is known here: looked for k3s, RKE2, k0s, MicroK8s, kind and /etc/containerd; name it with --distribution, and the host's root with --host-root"
    )]
    NoContainerd,
    /// More than one containerd that a kubelet could use.
    #[error("there is more than one Kubernetes here: {0}; choose with --distribution")]
    Ambiguous(String),
    /// A configuration that containerd itself can't read.
    #[error("containerd's configuration was broken already: {why}; correct {path} first. Nothing was changed")]
    Broken {
        /// The main file.
        path: PathBuf,
        /// What containerd or the parser says.
        why: String,
    },
    /// A containerd that no kubelet can use.
    #[error(
        "{0} disables CRI, so that no kubelet can use this containerd: take \"cri\" out of disabled_plugins. Nothing was changed"
    )]
    NoCri(PathBuf),
    /// A version that has no table for us.
    #[error(
        "{path} is of configuration version {version}; there are handlers in 2, 3 and 4: see `containerd config migrate`"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// containerd is too old, or says nothing.
    #[error("containerd is {0}; Lighter needs 1.7 or newer")]
    TooOld(String),
    /// A runtime handler of that name.
    #[error(
        "the handler {handler:?} is there already and runs {runtime}, which is not ours; choose another name with --handler, or take it out first. Nothing was changed"
    )]
    Taken {
        /// The handler's name.
        handler: String,
        /// What it runs.
        runtime: String,
    },
    /// containerd doesn't take what we wrote.
    #[error("with our lines containerd can't read its configuration: {0}; it was put back")]
    Refused(String),
    /// Something that was configured before.
    #[error("with our lines containerd would lose or change {}; the file was put back", .0.join(", "))]
    Lost(Vec<String>),
    /// Another program's or somebody's edit, which would be lost.
    #[error("{0} was changed by somebody else at the same moment; it is as they left it: try again")]
    Raced(PathBuf),
    /// Our lines have no effect.
    #[error("containerd does not see {what} in its configuration after {path} was written; it was put back")]
    Unseen {
        /// What is missing.
        what: String,
        /// What was written.
        path: PathBuf,
    },
    /// The journal.
    #[error("the journal {path} can't be understood: {why}; put containerd's configuration back by hand and remove it")]
    Journal {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// containerd could not be restarted.
    #[error("restart containerd by `{command}`: {why}")]
    Restart {
        /// The command, or the units that were tried.
        command: String,
        /// What it said.
        why: String,
    },
    /// Nothing is known that restarts containerd.
    #[error("no unit of systemd's is known that restarts containerd here: give --restart-command")]
    NoRestart,
    /// containerd doesn't answer.
    #[error("containerd does not answer at {address}: {why}")]
    Silent {
        /// Its socket.
        address: PathBuf,
        /// What the client says.
        why: String,
    },
    /// A handler doesn't work.
    #[error("the handler {handler:?} does not answer: {why}")]
    Handler {
        /// Its name.
        handler: String,
        /// What CRI says.
        why: String,
    },
    /// Pods that would lose their programs.
    #[error(
        "{0} pods still run by Lighter; delete them first, or use --force, after which they can't be entered or ended in order"
    )]
    InUse(usize),
    /// Nothing to upgrade.
    #[error("Lighter is not installed in {0}: use `lighter-node install`")]
    NotInstalled(PathBuf),
    /// It failed, and putting things back failed as well.
    #[error("{cause}; then putting the node back failed as well: {undo}; run `lighter-node uninstall`")]
    NotUndone {
        /// Why it was to be undone.
        cause: Box<Error>,
        /// Why it could not be.
        undo: Box<Error>,
    },
    /// The Kubernetes API.
    #[error("{what} by the Kubernetes API: {why}")]
    Kubernetes {
        /// What was asked for.
        what: String,
        /// What it answered.
        why: String,
    },
}
