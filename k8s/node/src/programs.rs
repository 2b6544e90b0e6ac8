//! Lighter's programs on the node: a folder for each version, and one link to the one that starts new pods.
//!
//! ```text
//! PREFIX/bin                     -> versions/0.1.0-8c980db2444b
//! PREFIX/versions/0.1.0-8c98…/   containerd-shim-lighter-v1, lighter-wasmtime, …
//! PREFIX/state/                  journal.json, lock, files as they were
//! ```
//!
//! A daemon finds its runners beside its own executable, links resolved: one that was started before an upgrade goes on
//! with the runners that it fits.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Output,
};

use sha2::{Digest, Sha256};

use crate::{
    Error, Host,
    config::{ASKED, Handler, asks_for_features},
    host::{Content, sync_folder},
    journal::{Used, digest},
};

/// The shim; all its names are links to it.
const SHIM: &str = "containerd-shim-lighter-v1";
/// What every installation has.
const NEEDED: &[&str] = &[SHIM, "lighter-wasmtime", "lighter-compile", "lighter-native", "lighter-fetch"];
/// What it may have.
const OPTIONAL: &[&str] = &["lighter-wamr", "lighter-wasmedge", "lighter-compile-wasmedge", "lighter"];
/// Engines with a handler of their own, each with a runner.
const ENGINES: &[&str] = &["wasmtime", "wamr", "wasmedge"];
/// How far the clocks of containerd and ours may be apart, in seconds, and how long a pod may take to start.
const MARGIN: u64 = 600;

/// Where things are below the prefix. Paths of the host's.
#[derive(Clone, Debug)]
pub struct Prefix(pub PathBuf);

impl Prefix {
    /// The link to the programs that start new pods.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// A folder for each version.
    #[must_use]
    pub fn versions(&self) -> PathBuf {
        self.0.join("versions")
    }

    /// The folder of one version.
    #[must_use]
    pub fn version(&self, version: &str) -> PathBuf {
        self.versions().join(version)
    }

    /// The journal's folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

/// Programs to be installed: a folder that `make install` filled.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This process's path, not the host's.
    folder: PathBuf,
    names: Vec<&'static str>,
    /// Of the release and of all bytes, so that two builds never share a folder.
    version: String,
}

impl Programs {
    /// # Errors
    /// One that is needed is missing or can't be read.
    pub fn in_folder(folder: &Path) -> Result<Self, Error> {
        let there = |name: &&&str| folder.join(name).is_file();
        if let Some(name) = NEEDED.iter().copied().find(|name| !folder.join(name).is_file()) {
            return Err(Error::NoPrograms { folder: folder.to_owned(), name });
        }
        let names: Vec<_> = NEEDED.iter().chain(OPTIONAL).filter(there).copied().collect();
        let mut all = Sha256::new();
        for name in &names {
            let path = folder.join(name);
            let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
            all.update(format!("{name} {}\n", digest(&bytes)));
        }
        let all: String = all.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let version = format!("{}-{all}", env!("CARGO_PKG_VERSION"));
        Ok(Self { folder: folder.to_owned(), names, version })
    }

    /// The name of its folder.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Copies them to the node, whole or not at all; of those that are there, what has been lost since. Nothing uses new
    /// ones yet.
    ///
    /// # Errors
    /// The prefix can't be written to.
    pub fn copy(&self, host: &Host, prefix: &Prefix) -> Result<(), Error> {
        let folder = prefix.version(&self.version);
        if host.exists(&folder) {
            return self.fill(host, &folder);
        }
        let temporary = prefix.versions().join(format!(".{}", self.version));
        host.remove_all(&temporary)?;
        host.make_folder(&temporary)?;
        self.fill(host, &temporary)?;
        let renamed = fs::rename(host.path(&temporary), host.path(&folder));
        renamed
            .and_then(|()| sync_folder(&host.path(prefix.versions())))
            .map_err(|source| Error::Write { path: folder, source })
    }

    /// Brings what a folder lacks, or has in another size.
    fn fill(&self, host: &Host, folder: &Path) -> Result<(), Error> {
        let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).ok();
        for name in &self.names {
            let (from, to) = (self.folder.join(name), folder.join(name));
            if size(&from) == size(&host.path(&to)) {
                continue;
            }
            let bytes = fs::read(&from).map_err(|source| Error::Read { path: from, source })?;
            host.write(&to, &Content { mode: 0o755, ..Content::new(bytes) })?;
        }
        for engine in ENGINES {
            let path = folder.join(format!("containerd-shim-{engine}-v1"));
            let link = host.path(folder).join(path.file_name().unwrap_or_default());
            if !link.is_symlink() {
                symlink(SHIM, &link).map_err(|source| Error::Write { path, source })?;
            }
        }
        Ok(())
    }

    /// Runs each on the node, and returns the engines that work there. An optional one that doesn't is left out: its
    /// library may be missing.
    ///
    /// # Errors
    /// One that is needed doesn't run.
    pub fn engines(
        &self,
        prefix: &Prefix,
        run: impl Fn(&[&str]) -> Result<Output, Error>,
    ) -> Result<Vec<&'static str>, Error> {
        let runs = |name: &str| {
            let program = prefix.version(&self.version).join(name);
            let asks = if name == SHIM { "-v" } else { "--version" };
            match run(&[&program.to_string_lossy(), asks]) {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    let why = if said.is_empty() { output.status.to_string() } else { said };
                    Err(Error::Program { program, why })
                }
                Err(error) => Err(Error::Program { program, why: error.to_string() }),
            }
        };
        for name in NEEDED {
            runs(name)?;
        }
        let engine = |engine: &&&str| {
            let runner = format!("lighter-{engine}");
            self.names.iter().any(|name| *name == runner) && runs(&runner).is_ok()
        };
        Ok(ENGINES.iter().filter(engine).copied().collect())
    }
}

/// The handlers for these engines, as this containerd should have them: one that lets the container choose, and one for
/// each.
#[must_use]
pub fn handlers(prefix: &Prefix, name: &str, engines: &[&str], containerd: (u32, u32)) -> Vec<Handler> {
    let shim = |of: &str| prefix.bin().join(format!("containerd-shim-{of}-v1")).to_string_lossy().into_owned();
    let runtime = |of: &str| match asks_for_features(containerd) {
        true => ASKED.to_owned(),
        false => format!("io.containerd.{of}.v1"),
    };
    let handler = |name: String, of: &str| Handler { name, runtime: runtime(of), shim: shim(of) };
    let all = handler(name.to_owned(), "lighter");
    [all].into_iter().chain(engines.iter().map(|engine| handler(format!("{name}-{engine}"), engine))).collect()
}

/// Whether a folder is one of a version, by its name, or half of one.
#[must_use]
pub fn is_version(name: &str) -> bool {
    let build = name.trim_start_matches('.').rsplit_once('-').map(|(_, build)| build);
    build.is_some_and(|build| build.len() == 12 && build.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The version that new pods start by, if any.
#[must_use]
pub fn active(host: &Host, prefix: &Prefix) -> Option<String> {
    // The link itself, not what it leads to.
    let link = fs::read_link(host.path(&prefix.0).join("bin")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Has new pods start by a version, or by none.
///
/// # Errors
/// The link can't be written.
pub fn activate(host: &Host, prefix: &Prefix, version: Option<&str>) -> Result<(), Error> {
    let folder = host.path(&prefix.0);
    let (link, temporary) = (folder.join("bin"), folder.join(".bin"));
    let failed = |source| Error::Write { path: prefix.bin(), source };
    let _ = fs::remove_file(&temporary);
    match version {
        None if link.is_symlink() => fs::remove_file(&link).map_err(failed),
        None => Ok(()),
        Some(_) if link.is_dir() && !link.is_symlink() => Err(Error::Foreign(prefix.bin())),
        Some(version) => symlink(Path::new("versions").join(version), &temporary)
            .and_then(|()| fs::rename(&temporary, &link))
            .and_then(|()| sync_folder(&folder))
            .map_err(failed),
    }
}

/// Which versions pods may still run by: `started` is when each of them was, and `now` is now, in seconds since 1970.
///
/// A node may start with a wrong clock and have it set later. Where the times can't be, every version is kept that a pod
/// might run by.
#[must_use]
pub fn in_use(versions: &[Used], started: &[u64], now: u64) -> Vec<Used> {
    let first = versions.first().map_or(0, |first| first.since);
    let impossible = |&at: &u64| at + MARGIN < first || at > now + MARGIN;
    let backwards = !started.is_empty() && !versions.is_sorted_by_key(|used| used.since);
    if backwards || started.iter().any(impossible) {
        return versions.to_vec();
    }
    let ends = versions.iter().skip(1).map(|next| Some(next.since)).chain([None]);
    let used = |(version, end): &(&Used, Option<u64>)| {
        let Some(end) = *end else { return true };
        started.iter().any(|&at| at + MARGIN >= version.since && at <= end + MARGIN)
    };
    versions.iter().zip(ends).filter(used).map(|(version, _)| version.clone()).collect()
}

/// Removes all versions but these, and what an interrupted run left.
///
/// # Errors
/// One can't be removed.
pub fn keep_only(host: &Host, prefix: &Prefix, kept: &[Used]) -> Result<(), Error> {
    for name in host.names(&prefix.versions()) {
        if kept.iter().any(|used| used.version == name) {
            continue;
        }
        // Under another name first: half of a version must not be taken for one.
        let going = prefix.version(&format!(".{name}"));
        let (from, to) = (host.path(prefix.version(&name)), host.path(&going));
        fs::rename(&from, &to).map_err(|source| Error::Remove { path: prefix.version(&name), source })?;
        host.remove_all(&going)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn folder(of: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in NEEDED.iter().chain(["lighter-wamr"].iter()) {
            fs::write(folder.path().join(name), format!("{name} {of}")).unwrap();
        }
        folder
    }

    #[test]
    fn a_version_is_copied_whole_and_told_by_its_bytes() {
        let (a, b, root) = (folder("a"), folder("b"), tempfile::tempdir().unwrap());
        let (host, prefix) = (Host::new(root.path()), Prefix("/opt/lighter".into()));
        host.make_folder(&prefix.versions()).unwrap();
        let [a, b] = [&a, &b].map(|folder| Programs::in_folder(folder.path()).unwrap());
        assert_ne!(a.version(), b.version());
        assert!(is_version(a.version()) && is_version(&format!(".{}", b.version())) && !is_version("1.0-beta"));
        for programs in [&a, &b, &a] {
            programs.copy(&host, &prefix).unwrap();
            activate(&host, &prefix, Some(programs.version())).unwrap();
            assert_eq!(active(&host, &prefix).as_deref(), Some(programs.version()));
        }
        let shim = host.path(prefix.bin().join("containerd-shim-wamr-v1"));
        assert!(shim.ends_with(format!("versions/{}/{SHIM}", a.version())), "{}", shim.display());
        keep_only(&host, &prefix, &[Used { version: a.version().to_owned(), since: 0 }]).unwrap();
        assert_eq!(host.names(&prefix.versions()), [a.version()]);
        activate(&host, &prefix, None).unwrap();
        assert_eq!(active(&host, &prefix), None);
    }

    #[test]
    fn what_a_version_has_lost_is_brought_again() {
        let (build, root) = (folder("a"), tempfile::tempdir().unwrap());
        let (host, prefix) = (Host::new(root.path()), Prefix("/opt/lighter".into()));
        host.make_folder(&prefix.versions()).unwrap();
        let programs = Programs::in_folder(build.path()).unwrap();
        programs.copy(&host, &prefix).unwrap();
        let folder = host.path(prefix.version(programs.version()));
        fs::remove_file(folder.join("lighter-native")).unwrap();
        fs::remove_file(folder.join("containerd-shim-wamr-v1")).unwrap();
        fs::write(folder.join("lighter-wasmtime"), "").unwrap();
        programs.copy(&host, &prefix).unwrap();
        for name in ["lighter-native", "lighter-wasmtime"] {
            assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), format!("{name} a"));
        }
        assert!(folder.join("containerd-shim-wamr-v1").exists());
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = folder("a");
        fs::remove_file(folder.path().join("lighter-native")).unwrap();
        let error = Programs::in_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds no lighter-native: give --from"), "{error}");
    }

    #[test]
    fn a_handler_for_each_engine() {
        for (containerd, types) in [
            ((1, 7), ["io.containerd.lighter.v1", "io.containerd.wasmtime.v1", "io.containerd.wamr.v1"]),
            ((2, 0), ["io.containerd.runc.v2"; 3]),
        ] {
            let names: Vec<_> = handlers(&Prefix("/opt/l".into()), "lighter", &["wasmtime", "wamr"], containerd)
                .into_iter()
                .map(|handler| (handler.name, handler.runtime, handler.shim))
                .collect();
            let expected = [
                ("lighter", types[0], "/opt/l/bin/containerd-shim-lighter-v1"),
                ("lighter-wasmtime", types[1], "/opt/l/bin/containerd-shim-wasmtime-v1"),
                ("lighter-wamr", types[2], "/opt/l/bin/containerd-shim-wamr-v1"),
            ];
            assert_eq!(names, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        }
    }

    #[test]
    fn versions_stay_as_long_as_pods_of_theirs() {
        let version = |version: &str, since| Used { version: version.to_owned(), since };
        let versions = [version("a", 10_000), version("b", 20_000), version("c", 30_000)];
        let table: [(&[u64], &[&str]); 8] = [
            (&[], &["c"]),
            (&[12_000], &["a", "c"]),
            (&[25_000], &["b", "c"]),
            (&[20_100], &["a", "b", "c"]),
            (&[40_000], &["c"]),
            (&[12_000, 22_000, 35_000], &["a", "b", "c"]),
            // Before any of them, and after today.
            (&[90], &["a", "b", "c"]),
            (&[90_000], &["a", "b", "c"]),
        ];
        let kept = |versions: &[Used], started: &[u64]| -> Vec<_> {
            in_use(versions, started, 50_000).into_iter().map(|used| used.version).collect()
        };
        for (started, expected) in table {
            assert_eq!(kept(&versions, started), expected, "{started:?}");
        }
        // The clock was put back.
        let versions = [version("a", 40_000), version("b", 10_000)];
        assert_eq!(kept(&versions, &[40_100]), ["a", "b"]);
        assert_eq!(kept(&versions, &[]), ["b"]);
    }
}
