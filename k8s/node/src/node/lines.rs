//! Our lines in containerd's configuration: where they go, and whether they do what they should and nothing else.

use std::path::Path;

use super::Node;
use crate::{
    Error,
    config::{self, Addition, Document, Merged},
    daemon::Daemon,
    distribution::{Distribution, Place},
    host::Content,
    journal::{Change, Journal, digest_of},
};

impl<D: Daemon> Node<'_, D> {
    /// What containerd makes of its configuration now.
    pub(super) async fn merged(&self) -> Result<Merged, Error> {
        let config = &self.layout.config;
        let text = self.host.read_text(config)?;
        // A file of its own that is no TOML is named better by the parser than by containerd.
        if let Some(text) = &text {
            Document::parse(config, text)?;
        }
        let dumped = self.daemon.dump(text.is_some().then_some(config.as_path())).await?;
        Merged::parse(config, &dumped.or(text).unwrap_or_else(|| "version = 2\n".to_owned()))
    }

    /// containerd's own file, if there is one.
    pub(super) fn main(&self) -> Result<Option<Document>, Error> {
        let config = &self.layout.config;
        self.host.read_text(config)?.map(|text| Document::parse(config, &text)).transpose()
    }

    pub(super) fn place(&self, version: (u32, u32)) -> Result<Place, Error> {
        Ok(Place::choose(&self.layout, version, self.main()?.as_ref()))
    }

    /// The files to write.
    pub(super) fn changes(
        &self,
        place: &Place,
        containerd: (u32, u32),
        before: &Merged,
        addition: &Addition,
    ) -> Result<Vec<Change>, Error> {
        // Before it is read: what is written in between is noticed.
        let seen = digest_of(&self.host, &self.layout.config)?;
        let main = self.main()?;
        // Files of several versions may be mixed, but only the main file's is known to be understood.
        let version = main.as_ref().map_or_else(|| before.version(), Document::version);
        let own = |path: &Path| {
            let mut document = Document::new(version);
            document.add(path, addition)?;
            Ok::<_, Error>(Change::new(path, digest_of(&self.host, path)?, document.to_string()))
        };
        Ok(match place {
            Place::DropIn(path) => vec![own(path)?],
            Place::Import { own: path, main: config } => {
                let mut document = main.unwrap_or_else(|| Document::new(version));
                let import = path.to_string_lossy().into_owned();
                document.import(&import);
                let main = Change { imports: Some(import), ..Change::new(config, seen, document.to_string()) };
                // Ours first: an import of what isn't there stops containerd.
                vec![own(path)?, main]
            }
            Place::Main(path) => {
                let mut document = main.unwrap_or_else(|| Document::new(version));
                if !config::adds_to_defaults(containerd) {
                    document.keep_defaults(path, before)?;
                }
                document.add(path, addition)?;
                vec![Change::new(path, seen, document.to_string())]
            }
            Place::Template(path) => {
                let seen = digest_of(&self.host, path)?;
                let base = self.host.read_text(path)?.unwrap_or_else(|| "{{ template \"base\" . }}\n".to_owned());
                let appended = format!("\n{}", config::tables(version, path, addition)?);
                vec![Change { appended: Some(appended.clone()), ..Change::new(path, seen, base + &appended) }]
            }
        })
    }

    /// Whether with our lines containerd has what it had, and what we want. Where its files are rendered at its start,
    /// what will be rendered is checked.
    pub(super) async fn check(&self, place: &Place, before: &Merged, addition: &Addition) -> Result<(), Error> {
        let (after, path) = match place {
            // Merged by k0s, when it starts; what we wrote is whole by itself.
            Place::DropIn(path) if self.layout.distribution == Distribution::K0s => {
                let own = self.host.read_text(path)?.unwrap_or_default();
                if Merged::parse(path, &own)?.missing(addition).is_none() {
                    return Ok(());
                }
                return Err(Error::Unseen { what: "what was written".to_owned(), path: path.clone() });
            }
            Place::DropIn(path) | Place::Main(path) => (self.merged().await.map_err(refused)?, path),
            Place::Import { main, .. } => (self.merged().await.map_err(refused)?, main),
            Place::Template(path) => {
                let mut rendered = self.main()?.unwrap_or_else(|| Document::new(before.version()));
                // What was rendered last may be with our lines.
                rendered.take_out(addition, None);
                let text = format!("{rendered}\n{}", config::tables(rendered.version(), path, addition)?);
                let candidate = self.prefix.state().join("candidate.toml");
                // A registry's password may be in it.
                self.host.write(&candidate, &Content { mode: 0o600, ..Content::new(text.clone()) })?;
                let dumped = self.daemon.dump(Some(&candidate)).await;
                self.host.remove(&candidate)?;
                (Merged::parse(path, &dumped.map_err(refused)?.unwrap_or(text)).map_err(refused)?, path)
            }
        };
        let lost = before.lost(&after, addition);
        if !lost.is_empty() {
            return Err(Error::Lost(lost));
        }
        match after.missing(addition) {
            Some(what) => Err(Error::Unseen { what, path: path.clone() }),
            None => Ok(()),
        }
    }

    /// Whether an installation is what it should be, as far as containerd's files say.
    pub(super) fn is_in_place(&self, old: &Journal, addition: &Addition, merged: &Merged) -> Result<bool, Error> {
        // One that was interrupted has nothing in place, whatever containerd has read of it.
        if !old.phase.is_complete() || old.addition != *addition || old.distribution != self.layout.distribution {
            return Ok(false);
        }
        // Files that somebody else has changed since may still hold all of it.
        Ok(old.is_intact(&self.host)? || merged.missing(addition).is_none())
    }
}

/// What is wrong with a configuration of which we wrote a part.
fn refused(error: Error) -> Error {
    match error {
        Error::Broken { why, .. } => Error::Refused(why),
        other => other,
    }
}
