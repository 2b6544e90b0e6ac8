//! Installs, upgrades and repairs; undoes what fails.

use std::path::Path;

use super::{Node, Report, now};
use crate::{
    Error,
    config::{self, Addition},
    daemon::Daemon,
    distribution::Place,
    journal::{Journal, Phase, Proven},
    programs::{self, Programs},
};

impl<D: Daemon> Node<'_, D> {
    /// Installs, upgrades or repairs: afterwards the node has these programs, and handlers named after `handler` that
    /// work; or, after an error, what it had before.
    ///
    /// # Errors
    /// What was in the way. [`Error::NotUndone`] where the node is not as it was.
    pub async fn install(&self, from: &Path, handler: &str) -> Result<Report, Error> {
        let programs = Programs::in_folder(from)?;
        self.refuse_foreign()?;
        let _lock = self.lock()?;
        let mut notes = Vec::new();
        self.sweep(&mut notes).await;
        let old = self.recover(&mut notes).await?;
        let had = old.is_some();
        match self.install_locked(old, &programs, handler, notes).await {
            Ok(report) => Ok(report),
            Err(cause) => match self.forget_unused(&programs, had) {
                Ok(()) => Err(cause),
                Err(undo) => Err(Error::NotUndone { cause: Box::new(cause), undo: Box::new(undo) }),
            },
        }
    }

    async fn install_locked(
        &self,
        old: Option<Journal>,
        programs: &Programs,
        handler: &str,
        mut notes: Vec<String>,
    ) -> Result<Report, Error> {
        let version = self.daemon.version().await?;
        let before = self.merged().await?;
        if before.disables_cri() {
            return Err(Error::NoCri(self.layout.config.clone()));
        }
        self.step("copy the programs");
        programs.copy(&self.host, &self.prefix)?;
        let engines = programs.engines(&self.prefix, |argv| self.daemon.run(argv))?;
        let handlers = programs::handlers(&self.prefix, handler, &engines, version);
        for handler in &handlers {
            // Ours is known by where it leads: a rendered file may hold it longer than the journal does.
            if let Some(runtime) = before.runs(&handler.name).filter(|runtime| *runtime != handler.shim) {
                return Err(Error::Taken { handler: handler.name.clone(), runtime });
            }
        }
        let mut addition = Addition {
            handlers,
            systemd_cgroup: before.systemd_cgroup(),
            // What is on without us stays on without us.
            local_pull: old.as_ref().is_some_and(|old| old.addition.local_pull)
                || config::pulls_by_transfer(version) && !before.local_pull(),
        };
        let rendered = self.main()?.is_some_and(|main| main.has_images());
        if addition.local_pull && rendered && matches!(self.place(version)?, Place::Template(_)) {
            addition.local_pull = false;
            notes.push(
                "set use_local_image_pull = true in the images' table of the template: without it, images of ordinary layers \
                 for wasi/wasm are not unpacked"
                    .to_owned(),
            );
        }
        match old {
            Some(old) if self.is_in_place(&old, &addition, &before)? => self.switch(old, programs, notes).await,
            old => self.configure(old, version, addition, programs, notes).await,
        }
    }

    /// Configures containerd, from what it was without us. `old` is what it may have of us.
    async fn configure(
        &self,
        old: Option<Journal>,
        version: (u32, u32),
        addition: Addition,
        programs: &Programs,
        mut notes: Vec<String>,
    ) -> Result<Report, Error> {
        let previous = programs::active(&self.host, &self.prefix);
        let versions = old.as_ref().map(|old| old.versions.clone()).unwrap_or_default();
        let proven = old.as_ref().and_then(|old| old.proven.clone());
        if let Some(old) = old {
            self.step("take the old configuration out");
            self.put_back(old, &versions, &mut notes)?;
        }
        let mut journal = Journal::new(self.layout.distribution, addition, versions.clone(), proven.clone());
        let cause = match self.apply(&mut journal, version, programs.version()).await {
            Ok(pods) => return self.finish(&journal, pods, true, notes),
            Err(cause) => cause,
        };

        self.step(&format!("undo, because: {cause}"));
        let names = journal.handlers();
        let undone = async {
            self.put_back(journal, &versions, &mut notes)?;
            let Some(proven) = proven else {
                // Pods that run need it at their end.
                programs::activate(&self.host, &self.prefix, previous.as_deref())?;
                return self.settle(&names).await;
            };
            let addition = proven.addition.clone();
            let mut journal = Journal::new(self.layout.distribution, addition, versions, Some(proven.clone()));
            let pods = self.apply(&mut journal, version, &proven.version).await?;
            self.finish(&journal, pods, true, notes).map(drop)
        };
        Err(match undone.await {
            Ok(()) => cause,
            Err(undo) => Error::NotUndone { cause: Box::new(cause), undo: Box::new(undo) },
        })
    }

    /// Returns how many pods run by it.
    async fn apply(&self, journal: &mut Journal, version: (u32, u32), programs: &str) -> Result<usize, Error> {
        let state = self.prefix.state();
        let before = self.merged().await?;
        let place = self.place(version)?;
        self.step("write the journal");
        journal.uses(programs, now());
        journal.store(&self.host, &state)?;
        self.step("switch to the programs");
        programs::activate(&self.host, &self.prefix, Some(programs))?;
        for change in self.changes(&place, version, &before, &journal.addition)? {
            self.step(&format!("keep what {} is", change.path.display()));
            journal.note(&self.host, &state, &change)?;
            self.step(&format!("write {}", change.path.display()));
            change.make(&self.host)?;
        }
        self.step("check what containerd makes of it");
        self.check(&place, &before, &journal.addition).await?;
        self.step("restart containerd");
        self.daemon.restart().await?;
        let names = journal.handlers();
        if self.unread(&names).await? {
            return Err(Error::Unseen { what: names.join(", "), path: self.layout.config.clone() });
        }
        self.try_all(&names).await?;
        self.conclude(journal).await
    }

    /// The configuration is as it should be: at most the programs are new, or containerd hasn't read it yet.
    async fn switch(&self, mut journal: Journal, programs: &Programs, notes: Vec<String>) -> Result<Report, Error> {
        // An interrupted run may have left another one active.
        let active = programs::active(&self.host, &self.prefix);
        let previous = journal.proven.as_ref().map(|proven| proven.version.clone()).or_else(|| active.clone());
        let is_new = active.as_deref() != Some(programs.version());
        let names = journal.handlers();
        let unread = self.unread(&names).await?;
        if !is_new && !unread && journal.phase == Phase::Installed {
            let pods = self.conclude(&mut journal).await?;
            return self.finish(&journal, pods, false, notes);
        }
        if is_new {
            self.step("write the journal");
            journal.uses(programs.version(), now());
            journal.phase = Phase::Switching;
            journal.store(&self.host, &self.prefix.state())?;
            self.step("switch to the programs");
            programs::activate(&self.host, &self.prefix, Some(programs.version()))?;
        }
        let tried = async {
            if unread {
                self.step("restart containerd");
                self.daemon.restart().await?;
            }
            self.try_all(&names).await?;
            self.conclude(&mut journal).await
        };
        let cause = match tried.await {
            Ok(pods) => return self.finish(&journal, pods, true, notes),
            Err(cause) => cause,
        };
        self.step(&format!("switch back, because: {cause}"));
        let undone = async {
            programs::activate(&self.host, &self.prefix, previous.as_deref())?;
            if let Some(previous) = &previous {
                journal.uses(previous, now());
            }
            let pods = self.conclude(&mut journal).await?;
            self.finish(&journal, pods, true, Vec::new()).map(drop)
        };
        Err(match undone.await {
            Ok(()) => cause,
            Err(undo) => Error::NotUndone { cause: Box::new(cause), undo: Box::new(undo) },
        })
    }

    async fn try_all(&self, handlers: &[String]) -> Result<(), Error> {
        for handler in handlers {
            self.step(&format!("run a pod by {handler}"));
            self.daemon.try_handler(handler).await?;
        }
        Ok(())
    }

    /// All is in place: says so. Returns how many pods run by it.
    async fn conclude(&self, journal: &mut Journal) -> Result<usize, Error> {
        let pods = self.daemon.running(&journal.handlers()).await?;
        let started: Vec<u64> = pods.iter().map(|pod| pod.started).collect();
        let kept = programs::in_use(&journal.versions, &started, now());
        let current = kept.last().map(|used| used.version.clone());
        let proven = current.map(|version| Proven { version, addition: journal.addition.clone() });
        if journal.phase != Phase::Installed || kept != journal.versions || proven != journal.proven {
            self.step("write the journal");
            journal.phase = Phase::Installed;
            journal.versions = kept;
            journal.proven = proven;
            journal.store(&self.host, &self.prefix.state())?;
        }
        Ok(pods.len())
    }

    /// Removes the versions that nobody runs by any more.
    fn finish(&self, journal: &Journal, pods: usize, changed: bool, notes: Vec<String>) -> Result<Report, Error> {
        self.step("remove what nobody uses");
        programs::keep_only(&self.host, &self.prefix, &journal.versions)?;
        Ok(self.report(Some(journal), true, changed, pods, notes))
    }

    /// After a failure: of a node that had nothing before, removes all; else what the failed run has brought.
    fn forget_unused(&self, programs: &Programs, had: bool) -> Result<(), Error> {
        match Journal::load(&self.host, &self.prefix.state())? {
            None if !had => self.remove_all(),
            Some(journal) if !journal.versions.iter().any(|used| used.version == programs.version()) => {
                programs::keep_only(&self.host, &self.prefix, &journal.versions)
            }
            // It is what the next run goes on from.
            _ => Ok(()),
        }
    }
}
