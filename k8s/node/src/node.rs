//! Install, upgrade, status, uninstall.

mod install;
mod lines;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{
    Error, Host,
    daemon::{Daemon, Running},
    distribution::{Distribution, Layout},
    journal::{Journal, Phase, Used},
    lock::Lock,
    programs::{self, Prefix},
};

/// How long another installer is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node, and how it is reached.
pub struct Node<'a, D> {
    /// Its files and programs.
    pub host: Host,
    /// Where its containerd keeps things.
    pub layout: Layout,
    /// Its containerd.
    pub daemon: D,
    /// Where Lighter goes.
    pub prefix: Prefix,
    /// Told of each step before it is made, in words for a log. A test may stop everything there.
    pub step: &'a dyn Fn(&str),
}

/// What a node has of Lighter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether it is installed, whole, and known to containerd.
    pub ready: bool,
    /// Whether a run changed anything.
    pub changed: bool,
    /// Whose containerd it is.
    pub distribution: Distribution,
    /// The version that new pods start by.
    pub version: Option<String>,
    /// Versions that pods may still run by.
    pub versions: Vec<String>,
    /// The handlers that containerd has.
    pub handlers: Vec<String>,
    /// Files that were changed for it.
    pub files: Vec<PathBuf>,
    /// Pods that it runs.
    pub pods: usize,
    /// What is not as it should be, or what somebody should know.
    pub notes: Vec<String>,
}

impl<D: Daemon> Node<'_, D> {
    /// Takes all of it away. With `force`, also where pods still run by it.
    ///
    /// # Errors
    /// Pods run by it; a file can't be put back; containerd doesn't answer afterwards.
    pub async fn uninstall(&self, force: bool) -> Result<Report, Error> {
        // Nothing to take away, not even a folder to lock.
        if !self.host.exists(self.prefix.state()) {
            return Ok(self.report(None, false, false, 0, Vec::new()));
        }
        self.refuse_foreign_folders()?;
        let _lock = self.lock()?;
        let mut notes = Vec::new();
        self.sweep(&mut notes).await;
        if let Some(mut journal) = Journal::load(&self.host, &self.prefix.state())? {
            let names = journal.handlers();
            let asked = self.daemon.running(&names).await;
            self.refuse_used(&asked, force)?;
            self.step("write the journal");
            journal.phase = Phase::Removing;
            // Nobody wants it back.
            journal.proven = None;
            journal.store(&self.host, &self.prefix.state())?;
            self.step("put the configuration back");
            notes.extend(journal.put_back(&self.host, &self.prefix.state())?.iter().map(ToString::to_string));
            self.settle(&names).await?;
            if asked.is_err() {
                // It was down, and its configuration may have been why. Its pods run on without it.
                self.refuse_used(&self.daemon.running(&names).await, force)?;
            }
        }
        self.remove_all()?;
        Ok(self.report(None, false, true, 0, notes))
    }

    /// Pods need their programs. Where containerd doesn't answer, nobody knows of any.
    fn refuse_used(&self, pods: &Result<Vec<Running>, Error>, force: bool) -> Result<(), Error> {
        match pods {
            Ok(pods) if !pods.is_empty() && !force => Err(Error::InUse(pods.len())),
            _ => Ok(()),
        }
    }

    /// Nothing of ours in the prefix, and no prefix if nothing of others' is in it.
    fn remove_all(&self) -> Result<(), Error> {
        self.step("remove the programs");
        programs::activate(&self.host, &self.prefix, None)?;
        self.host.remove_all(&self.prefix.versions())?;
        self.step("remove the journal");
        self.host.remove_all(&self.prefix.state())?;
        // Others' files in it stay, and so does the folder then.
        let _ = std::fs::remove_dir(self.host.path(&self.prefix.0));
        Ok(())
    }

    /// What there is. Changes nothing.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn status(&self) -> Result<Report, Error> {
        let Some(journal) = Journal::load(&self.host, &self.prefix.state())? else {
            return Ok(self.report(None, false, false, 0, Vec::new()));
        };
        let mut notes = Vec::new();
        if journal.phase != Phase::Installed {
            notes.push("a run was interrupted, or is at work: run `lighter-node install` or `uninstall`".to_owned());
        }
        if programs::active(&self.host, &self.prefix).as_ref() != journal.versions.last().map(|used| &used.version) {
            notes.push(format!("{} is not the version that was installed last", self.prefix.bin().display()));
        }
        match self.merged().await {
            Ok(merged) => notes.extend(merged.missing(&journal.addition).map(|what| {
                format!("{what} is not in containerd's configuration any more: run `lighter-node install`")
            })),
            Err(error) => notes.push(error.to_string()),
        }
        let names = journal.handlers();
        match self.unread(&names).await {
            Ok(false) => {}
            Ok(true) => notes.push("containerd has not read its configuration: run `lighter-node install`".to_owned()),
            Err(error) => notes.push(error.to_string()),
        }
        let pods = self.daemon.running(&names).await.map_or(0, |pods| pods.len());
        let ready = notes.is_empty();
        Ok(self.report(Some(&journal), ready, false, pods, notes))
    }

    /// Whether there is an installation, whole or not.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn is_installed(&self) -> Result<bool, Error> {
        Ok(Journal::load(&self.host, &self.prefix.state())?.is_some())
    }

    /// A folder that others put programs into is no prefix: what is in it would be written over.
    fn refuse_foreign(&self) -> Result<(), Error> {
        let bin = self.host.path(&self.prefix.0).join("bin");
        if bin.is_dir() && !bin.is_symlink() {
            return Err(Error::Foreign(self.prefix.bin()));
        }
        self.refuse_foreign_folders()
    }

    /// Nor is one whose folders of our names are somebody else's: they would be removed. Without a journal there is in
    /// them what an interrupted run leaves, or theirs.
    fn refuse_foreign_folders(&self) -> Result<(), Error> {
        if self.is_installed()? {
            return Ok(());
        }
        let (state, versions) = (self.prefix.state(), self.prefix.versions());
        if !self.host.names(&state).iter().all(|name| is_state(name)) {
            return Err(Error::Foreign(state));
        }
        if !self.host.names(&versions).iter().all(|name| programs::is_version(name)) {
            return Err(Error::Foreign(versions));
        }
        Ok(())
    }

    fn lock(&self) -> Result<Lock, Error> {
        Lock::take(&self.host, &self.prefix.0, &self.prefix.state(), PATIENCE)
    }

    fn step(&self, what: &str) {
        (self.step)(what);
    }

    /// Removes the pods that an interrupted run has left. A containerd that doesn't answer keeps nothing else from
    /// being done.
    async fn sweep(&self, notes: &mut Vec<String>) {
        if let Err(error) = self.daemon.sweep().await {
            notes.push(format!("pods by which handlers were tried may be left: {error}"));
        }
    }

    /// The journal, if there is one. What an interrupted run has changed is put back.
    async fn recover(&self, notes: &mut Vec<String>) -> Result<Option<Journal>, Error> {
        match Journal::load(&self.host, &self.prefix.state())? {
            Some(journal) if !journal.phase.is_complete() => {
                self.step("put back what an interrupted run has changed");
                let nobody = self.daemon.running(&journal.handlers()).await.is_ok_and(|pods| pods.is_empty());
                let mut versions = journal.versions.clone();
                if nobody {
                    // What has worked is kept even so: it is gone back to where the next one doesn't.
                    versions
                        .retain(|used| journal.proven.as_ref().is_some_and(|proven| proven.version == used.version));
                }
                self.put_back(journal, &versions, notes)?;
                Journal::load(&self.host, &self.prefix.state())
            }
            other => Ok(other),
        }
    }

    /// Undoes what the journal says; what remains of it is which versions pods may run by.
    fn put_back(&self, journal: Journal, versions: &[Used], notes: &mut Vec<String>) -> Result<(), Error> {
        let state = self.prefix.state();
        notes.extend(journal.put_back(&self.host, &state)?.iter().map(ToString::to_string));
        self.step("clear the journal");
        journal.clear(&self.host, &state, versions)
    }

    /// Whether containerd, as it runs, doesn't know these handlers.
    async fn unread(&self, handlers: &[String]) -> Result<bool, Error> {
        let known = self.daemon.handlers().await?;
        Ok(handlers.iter().any(|handler| !known.contains(handler)))
    }

    /// After files were put back: restarts containerd if it has read what they were, or can't be asked.
    async fn settle(&self, handlers: &[String]) -> Result<(), Error> {
        match self.daemon.handlers().await {
            Ok(known) if !handlers.iter().any(|handler| known.contains(handler)) => Ok(()),
            _ => {
                self.step("restart containerd");
                self.daemon.restart().await
            }
        }
    }

    fn report(&self, journal: Option<&Journal>, ready: bool, changed: bool, pods: usize, notes: Vec<String>) -> Report {
        Report {
            ready,
            changed,
            distribution: self.layout.distribution,
            version: journal.and_then(|_| programs::active(&self.host, &self.prefix)),
            versions: journal.iter().flat_map(|journal| &journal.versions).map(|used| used.version.clone()).collect(),
            handlers: journal.map(Journal::handlers).unwrap_or_default(),
            files: journal.iter().flat_map(|journal| &journal.edits).map(|edit| edit.path.clone()).collect(),
            pods,
            notes,
        }
    }
}

/// Whether a file in the folder of the state is ours, by its name: at rest, or half written.
fn is_state(name: &str) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(".lighter-node")).unwrap_or(name);
    ["lock", "journal.json", "candidate.toml"].contains(&name) || name.starts_with("original-")
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
