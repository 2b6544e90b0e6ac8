//! What was changed on the node, written down before it is changed.
//!
//! `PREFIX/state/journal.json` and, beside it, the bytes of each file as it was. Whatever a crash leaves, the next run
//! finds either no journal, and nothing was changed, or a journal by which all can be put back.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Error, Host,
    config::{Addition, Document},
    distribution::Distribution,
    host::Content,
};

/// What this module understands.
const FORMAT: u32 = 1;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Files are being changed, or containerd is about to read them. A run that finds this puts them back. Without any
    /// edits: programs are there that pods may run by, and nothing is configured.
    Installing,
    /// All is in place, but the programs are new, and the handlers have not answered yet.
    Switching,
    /// All is in place, and the handlers have answered.
    Installed,
    /// Files are being put back.
    Removing,
}

impl Phase {
    /// Whether the configuration is in place.
    #[must_use]
    pub fn is_complete(self) -> bool {
        match self {
            Self::Installing | Self::Removing => false,
            Self::Switching | Self::Installed => true,
        }
    }
}

/// A version of the programs, and since when pods are started by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The folder's name in `PREFIX/versions`.
    pub version: String,
    /// Seconds since 1970.
    pub since: u64,
}

/// An installation that has worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// As [`Used::version`].
    pub version: String,
    /// What was added to containerd's configuration.
    pub addition: Addition,
}

/// A file that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The host's path.
    pub path: PathBuf,
    /// What it was; none where it wasn't there.
    pub original: Option<Original>,
    /// SHA-256 of what was written, in hexadecimal.
    pub written: String,
    /// The text that was put behind the original, where the file is a template and no TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appended: Option<String>,
    /// What it imports since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imports: Option<String>,
    /// The first folder on its way that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

/// A file as it was. Its bytes are beside the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Name of the file with the bytes.
    pub saved: String,
    /// SHA-256 of the bytes, in hexadecimal.
    pub digest: String,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
}

/// All that there is to know of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    format: u32,
    /// How far it is.
    pub phase: Phase,
    /// Whose containerd it is.
    pub distribution: Distribution,
    /// What was added to its configuration.
    pub addition: Addition,
    /// The files that were changed for that, in order.
    pub edits: Vec<Edit>,
    /// Versions of the programs that pods may run by, the current one last.
    pub versions: Vec<Used>,
    /// By what the handlers have answered last: what is gone back to where something newer doesn't work, also by a run
    /// after one that was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Proven>,
}

impl Journal {
    /// Of an installation that has changed nothing yet.
    #[must_use]
    pub fn new(distribution: Distribution, addition: Addition, versions: Vec<Used>, proven: Option<Proven>) -> Self {
        let edits = Vec::new();
        Self { format: FORMAT, phase: Phase::Installing, distribution, addition, edits, versions, proven }
    }

    fn path(state: &Path) -> PathBuf {
        state.join("journal.json")
    }

    /// The journal in a folder of the host's, if there is one.
    ///
    /// # Errors
    /// It can't be read, or is of a format that this program doesn't know.
    pub fn load(host: &Host, state: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(state);
        let Some(text) = host.read_text(&path)? else { return Ok(None) };
        let journal: Self = serde_json::from_str(&text)
            .map_err(|error| Error::Journal { path: path.clone(), why: error.to_string() })?;
        if journal.format != FORMAT {
            return Err(Error::Journal { path, why: format!("it is of format {}", journal.format) });
        }
        Ok(Some(journal))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// It can't be written.
    pub fn store(&self, host: &Host, state: &Path) -> Result<(), Error> {
        let path = Self::path(state);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Journal { path: path.clone(), why: error.to_string() })?;
        host.write(&path, &Content { mode: 0o600, ..Content::new(text) })
    }

    /// Forgets the edits, which were put back, and this or that version: what remains is what pods may run by, and what
    /// has worked.
    ///
    /// # Errors
    /// It can't be written or removed.
    pub fn clear(mut self, host: &Host, state: &Path, versions: &[Used]) -> Result<(), Error> {
        let edits = std::mem::take(&mut self.edits);
        self.phase = Phase::Installing;
        self.versions = versions.to_vec();
        if versions.is_empty() {
            host.remove(&Self::path(state))?;
        } else {
            self.store(host, state)?;
        }
        edits.iter().flat_map(|edit| &edit.original).try_for_each(|original| host.remove(&state.join(&original.saved)))
    }

    /// New pods start by this version from now on.
    pub fn uses(&mut self, version: &str, now: u64) {
        if self.versions.last().is_none_or(|used| used.version != version) {
            self.versions.push(Used { version: version.to_owned(), since: now });
        }
    }

    /// The names of its handlers.
    #[must_use]
    pub fn handlers(&self) -> Vec<String> {
        self.addition.handlers.iter().map(|handler| handler.name.clone()).collect()
    }

    /// Notes that a file is about to be written, and keeps what it is now.
    ///
    /// # Errors
    /// Its bytes or the journal can't be written. [`Error::Raced`].
    pub fn note(&mut self, host: &Host, state: &Path, change: &Change) -> Result<(), Error> {
        let original = match change.base(host)? {
            Some(content) => {
                let digest = digest(&content.bytes);
                let saved = format!("original-{}", self.edits.len());
                host.write(&state.join(&saved), &Content { mode: 0o600, ..Content::new(content.bytes) })?;
                Some(Original { saved, digest, mode: content.mode, owner: content.owner })
            }
            None => None,
        };
        let folder = change.path.parent().into_iter().flat_map(Path::ancestors);
        let folder = folder.take_while(|folder| !host.exists(folder)).last().map(Path::to_owned);
        self.edits.push(Edit {
            path: change.path.clone(),
            original,
            written: digest(change.text.as_bytes()),
            appended: change.appended.clone(),
            imports: change.imports.clone(),
            folder,
        });
        self.store(host, state)
    }

    /// Puts every file back: byte for byte where nobody else has changed it since, else only what is ours is taken out
    /// of it. Can be done again after it was interrupted. Returns the files that somebody else has changed.
    ///
    /// # Errors
    /// A file can't be read or written.
    pub fn put_back(&self, host: &Host, state: &Path) -> Result<Vec<Changed>, Error> {
        let mut changed = Vec::new();
        for edit in self.edits.iter().rev() {
            changed.extend(self.put_back_one(host, state, edit)?);
            if let Some(folder) = &edit.folder {
                remove_empty(host, edit.path.parent(), folder);
            }
        }
        Ok(changed)
    }

    fn put_back_one(&self, host: &Host, state: &Path, edit: &Edit) -> Result<Option<Changed>, Error> {
        let now = host.read(&edit.path)?;
        let digest_now = now.as_ref().map(|content| digest(&content.bytes));
        if digest_now.as_deref() == edit.original.as_ref().map(|original| original.digest.as_str()) {
            return Ok(None);
        }
        if digest_now.as_ref() == Some(&edit.written) {
            match &edit.original {
                None => host.remove(&edit.path)?,
                Some(original) => {
                    let saved = state.join(&original.saved);
                    let bytes = host.read(&saved)?.ok_or_else(|| Error::Journal {
                        path: saved.clone(),
                        why: format!("it is gone, and held what {} was", edit.path.display()),
                    })?;
                    let content = Content { bytes: bytes.bytes, mode: original.mode, owner: original.owner };
                    host.write(&edit.path, &content)?;
                }
            }
            return Ok(None);
        }
        // Somebody else's, by now. One that was removed stays so.
        let Some(now) = now else { return Ok(None) };
        let text = String::from_utf8_lossy(&now.bytes).into_owned();
        let without = match &edit.appended {
            // No TOML: the exact text that was put there, if it is there still.
            Some(appended) => text.replacen(appended.as_str(), "", 1),
            None => {
                let mut document = Document::parse(&edit.path, &text)?;
                document.take_out(&self.addition, edit.imports.as_deref());
                document.to_string()
            }
        };
        let has_ours =
            edit.appended.is_some() && self.addition.handlers.iter().any(|handler| without.contains(&handler.shim));
        if without != text {
            host.write(&edit.path, &Content { bytes: without.into_bytes(), ..now })?;
        }
        Ok(Some(Changed { path: edit.path.clone(), has_ours }))
    }

    /// Whether every file is as it was written.
    ///
    /// # Errors
    /// One is there, but can't be read.
    pub fn is_intact(&self, host: &Host) -> Result<bool, Error> {
        for edit in &self.edits {
            if digest_of(host, &edit.path)?.as_ref() != Some(&edit.written) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A file that somebody else has changed since we wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The host's path.
    pub path: PathBuf,
    /// Whether lines of ours are in it still: a template is no TOML, so lines that were changed are not known.
    pub has_ours: bool,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.has_ours {
            false => write!(f, "{path} was changed by somebody else: only our lines were taken out"),
            true => write!(f, "{path} was changed by somebody else, our lines as well: take them out by hand"),
        }
    }
}

/// A file that is about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The host's path.
    pub path: PathBuf,
    /// SHA-256 of what it was made from, in hexadecimal; none where nothing was there.
    pub seen: Option<String>,
    /// All of it.
    pub text: String,
    /// As [`Edit::appended`].
    pub appended: Option<String>,
    /// As [`Edit::imports`].
    pub imports: Option<String>,
}

impl Change {
    /// Of a file of TOML, of which `seen` was [seen][digest_of].
    #[must_use]
    pub fn new(path: &Path, seen: Option<String>, text: String) -> Self {
        Self { path: path.to_owned(), seen, text, appended: None, imports: None }
    }

    /// The file as it is, which must be what the text was made from: what somebody else writes meanwhile is not lost.
    fn base(&self, host: &Host) -> Result<Option<Content>, Error> {
        let now = host.read(&self.path)?;
        if now.as_ref().map(|content| digest(&content.bytes)) != self.seen {
            return Err(Error::Raced(self.path.clone()));
        }
        Ok(now)
    }

    /// Writes it; its folder is made, its mode kept.
    ///
    /// # Errors
    /// It can't be written. [`Error::Raced`].
    pub fn make(&self, host: &Host) -> Result<(), Error> {
        if let Some(folder) = self.path.parent() {
            host.make_folder(folder)?;
        }
        let kept = self.base(host)?.unwrap_or_else(|| Content::new(""));
        host.write(&self.path, &Content { bytes: self.text.clone().into_bytes(), ..kept })
    }
}

/// Removes folders that are empty, from `folder` up to `last`.
fn remove_empty(host: &Host, folder: Option<&Path>, last: &Path) {
    for folder in folder.into_iter().flat_map(Path::ancestors).take_while(|folder| folder.starts_with(last)) {
        // Not ours any more where somebody has put something there.
        if std::fs::remove_dir(host.path(folder)).is_err() {
            return;
        }
    }
}

/// SHA-256 of a file in hexadecimal, if it is there.
///
/// # Errors
/// It can't be read.
pub fn digest_of(host: &Host, path: &Path) -> Result<Option<String>, Error> {
    Ok(host.read(path)?.map(|content| digest(&content.bytes)))
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Handler;

    const STATE: &str = "/state";

    fn journal() -> Journal {
        let handler = Handler { name: "lighter".into(), runtime: "r".into(), shim: "/s".into() };
        let addition = Addition { handlers: vec![handler], systemd_cgroup: false, local_pull: false };
        Journal::new(Distribution::Containerd, addition, Vec::new(), None)
    }

    fn host() -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::new(folder.path());
        host.make_folder(Path::new(STATE)).unwrap();
        host.make_folder(Path::new("/etc")).unwrap();
        (folder, host)
    }

    fn changed(host: &Host, path: &str, text: &str) -> Journal {
        let mut journal = journal();
        let path = Path::new(path);
        let change = Change::new(path, digest_of(host, path).unwrap(), text.to_owned());
        journal.note(host, Path::new(STATE), &change).unwrap();
        change.make(host).unwrap();
        assert_eq!(Journal::load(host, Path::new(STATE)).unwrap().as_ref(), Some(&journal));
        assert!(journal.is_intact(host).unwrap());
        journal
    }

    #[test]
    fn files_come_back_byte_for_byte() {
        let (_folder, host) = host();
        let path = Path::new("/etc/config.toml");
        let odd = Content { mode: 0o640, ..Content::new(*b"version = 2 # \xff no UTF-8\r\n") };
        host.write(path, &odd).unwrap();
        let journal = changed(&host, "/etc/config.toml", "version = 2\n");
        assert_eq!(journal.put_back(&host, Path::new(STATE)).unwrap(), []);
        assert_eq!(host.read(path).unwrap().unwrap(), odd);
        assert_eq!(journal.put_back(&host, Path::new(STATE)).unwrap(), []);
        assert_eq!(host.read(path).unwrap().unwrap(), odd);
    }

    #[test]
    fn files_and_folders_that_were_not_there_go() {
        let (_folder, host) = host();
        let journal = changed(&host, "/etc/a/b/lighter.toml", "version = 3\n");
        journal.put_back(&host, Path::new(STATE)).unwrap();
        assert!(!host.exists("/etc/a") && host.exists("/etc"));
    }

    #[test]
    fn what_others_wrote_since_stays() {
        let (_folder, host) = host();
        let path = Path::new("/etc/config.toml");
        host.write(path, &Content::new("version = 2\n")).unwrap();
        let mut document = Document::parse(path, "version = 2\n").unwrap();
        document.add(path, &journal().addition).unwrap();
        let journal = changed(&host, "/etc/config.toml", &document.to_string());
        host.write(path, &Content::new(format!("{document}\n[debug]\nlevel = \"info\"\n"))).unwrap();
        assert!(!journal.is_intact(&host).unwrap());
        assert_eq!(
            journal.put_back(&host, Path::new(STATE)).unwrap(),
            [Changed { path: path.to_owned(), has_ours: false }]
        );
        let text = host.read_text(path).unwrap().unwrap();
        assert!(text.contains("level = \"info\"") && !text.contains("lighter"), "{text}");
    }

    #[test]
    fn an_appendix_is_taken_out_of_a_template_that_was_changed() {
        let (_folder, host) = host();
        let path = Path::new("/etc/config.toml.tmpl");
        host.write(path, &Content::new("{{ template \"base\" . }}\n")).unwrap();
        let mut journal = journal();
        let appended = "\n[ours]\n".to_owned();
        let text = format!("{{{{ template \"base\" . }}}}\n{appended}");
        let change =
            Change { appended: Some(appended), ..Change::new(path, digest_of(&host, path).unwrap(), text.clone()) };
        journal.note(&host, Path::new(STATE), &change).unwrap();
        change.make(&host).unwrap();
        host.write(path, &Content::new(format!("{text}[theirs]\n"))).unwrap();
        assert_eq!(
            journal.put_back(&host, Path::new(STATE)).unwrap(),
            [Changed { path: path.to_owned(), has_ours: false }]
        );
        assert_eq!(host.read_text(path).unwrap().unwrap(), "{{ template \"base\" . }}\n[theirs]\n");
        host.write(path, &Content::new("[ours] # theirs\nruntime_path = '/s'\n")).unwrap();
        let changed = journal.put_back(&host, Path::new(STATE)).unwrap().swap_remove(0);
        assert!(changed.has_ours && changed.to_string().contains("by hand"), "{changed}");
    }

    #[test]
    fn journals_of_others_are_refused() {
        let (_folder, host) = host();
        for text in ["", "{", "{\"format\": 1}"] {
            host.write(Path::new("/state/journal.json"), &Content::new(text)).unwrap();
            let error = Journal::load(&host, Path::new(STATE)).unwrap_err().to_string();
            assert!(error.contains("can't be understood"), "{error}");
        }
        let later = serde_json::to_string(&Journal { format: 2, ..journal() }).unwrap();
        host.write(Path::new("/state/journal.json"), &Content::new(later)).unwrap();
        assert!(Journal::load(&host, Path::new(STATE)).unwrap_err().to_string().contains("format 2"));
    }
}
