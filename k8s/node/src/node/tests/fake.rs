//! A containerd that merges files and reads them at its start as the real ones do.

use std::{
    cell::{Cell, RefCell},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Output},
};

use toml::{Table, Value};

use crate::{
    Error, Host, config,
    daemon::{Daemon, Running},
    distribution::{Distribution, Layout},
    host::Content,
};

/// A containerd, and what starts it.
pub(super) struct Fake {
    pub(super) host: Host,
    pub(super) layout: Layout,
    pub(super) version: (u32, u32),
    /// The handlers that it has read; none while it doesn't run.
    pub(super) known: RefCell<Option<Vec<String>>>,
    pub(super) restarts: Cell<u32>,
    /// Handlers that don't work, and programs that don't run. A handler may be followed by the build that it fails with.
    pub(super) fails: RefCell<Vec<String>>,
    /// What it says of handlers that don't work.
    pub(super) says: RefCell<String>,
    /// Whether it replaces tables by those of imported files, as its version would not.
    pub(super) replaces: Cell<bool>,
    /// How often a restart still fails.
    pub(super) stubborn: Cell<u32>,
    pub(super) pods: RefCell<Vec<Running>>,
}

impl Fake {
    /// The file that is rendered at a start, where one is.
    pub(super) fn render(&self) {
        let folder = self.layout.folder();
        let base = self.layout.config.with_extension("base");
        let Some(base) = self.host.read_text(&base).unwrap() else { return };
        let template = ["config-v3.toml.tmpl", "config.toml.tmpl"].map(|name| folder.join(name));
        let template = template.iter().find_map(|path| self.host.read_text(path).unwrap());
        let text = template.map_or(base.clone(), |text| text.replace("{{ template \"base\" . }}\n", &base));
        self.host.write(&self.layout.config, &Content::new(text)).unwrap();
    }

    pub(super) fn merge(&self, path: &Path) -> Result<Table, String> {
        let text = self.host.read_text(path).unwrap().ok_or(format!("open {}: no such file", path.display()))?;
        let merged: Table = toml::from_str(&text).map_err(|error| error.to_string())?;
        self.merge_imports(path, merged)
    }

    /// What it has with a file, or without any.
    fn whole(&self, path: Option<&Path>) -> Result<Table, String> {
        let none = || {
            let version = if self.version < (2, 0) { 2 } else { 3 };
            self.merge_imports(&self.layout.config, toml::from_str(&format!("version = {version}")).unwrap())
        };
        let mut merged = path.map_or_else(none, |path| self.merge(path))?;
        let plugin = plugin(&merged);
        // What is there by default, and is taken away by 1.7 as soon as there is another.
        let runc = "runtime_type = \"io.containerd.runc.v2\"";
        let runtimes = ["plugins", plugin, "containerd", "runtimes"].iter().try_fold(&mut merged, |table, name| {
            table.entry(*name).or_insert_with(|| Value::Table(Table::new())).as_table_mut()
        });
        let runtimes = runtimes.ok_or("a plugin is no table")?;
        if runtimes.is_empty() || self.version >= (2, 0) {
            runtimes.entry("runc").or_insert_with(|| Value::Table(toml::from_str(runc).unwrap()));
        }
        Ok(merged)
    }

    fn merge_imports(&self, path: &Path, mut merged: Table) -> Result<Table, String> {
        let imports = merged.get("imports").and_then(Value::as_array).cloned();
        let imports = imports.unwrap_or_default();
        let k0s = (self.layout.distribution == Distribution::K0s).then(|| Value::from("/etc/k0s/containerd.d/*.toml"));
        let folder = path.parent().unwrap();
        for import in imports.iter().chain(&k0s).filter_map(Value::as_str) {
            let import = folder.join(import);
            let files = match config::pattern_folder(import.to_str().unwrap()) {
                Some(folder) => self
                    .host
                    .names(folder)
                    .into_iter()
                    .filter(|name| !name.starts_with('.'))
                    .map(|name| folder.join(name))
                    .collect(),
                None => vec![import],
            };
            for file in files {
                let text =
                    self.host.read_text(&file).unwrap().ok_or(format!("open {}: no such file", file.display()))?;
                let other: Table = toml::from_str(&text).map_err(|error| error.to_string())?;
                deep(&mut merged, other, (k0s.is_some() || self.version >= (2, 0)) && !self.replaces.get(), 0);
            }
        }
        Ok(merged)
    }

    pub(super) fn runtimes(&self) -> Option<Vec<String>> {
        let config = &self.layout.config;
        let merged = self.whole(self.host.exists(config).then_some(config)).ok()?;
        let runtimes = merged["plugins"][plugin(&merged)]["containerd"]["runtimes"].as_table()?;
        // A CRI without its default runtime does not start.
        runtimes.contains_key("runc").then(|| runtimes.keys().cloned().collect())
    }
}

fn plugin(merged: &Table) -> &'static str {
    match merged.get("version").and_then(Value::as_integer) {
        Some(2) => "io.containerd.grpc.v1.cri",
        _ => "io.containerd.cri.v1.runtime",
    }
}

/// As containerd merges: tables, or since 2.0 their keys.
pub(super) fn deep(into: &mut Table, from: Table, all: bool, depth: u32) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) if all || depth == 0 => deep(into, from, all, depth + 1),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

impl Daemon for Fake {
    fn run(&self, argv: &[&str]) -> Result<Output, Error> {
        let fails = self.fails.borrow().iter().any(|name| argv[0].ends_with(&format!("/{name}")));
        let status = ExitStatus::from_raw(if fails { 256 } else { 0 });
        Ok(Output { status, stdout: Vec::new(), stderr: if fails { b"no such library".to_vec() } else { Vec::new() } })
    }

    async fn version(&self) -> Result<(u32, u32), Error> {
        Ok(self.version)
    }

    async fn dump(&self, path: Option<&Path>) -> Result<Option<String>, Error> {
        let merged = self.whole(path);
        let path = path.unwrap_or(&self.layout.config);
        if path.ends_with("candidate.toml") {
            assert_eq!(self.host.read(path).unwrap().unwrap().mode, 0o600, "it holds what the rendered one does");
        }
        let merged = merged.map_err(|why| Error::Broken { path: path.to_owned(), why })?;
        Ok(Some(toml::to_string(&merged).unwrap()))
    }

    async fn restart(&self) -> Result<(), Error> {
        self.restarts.set(self.restarts.get() + 1);
        if self.stubborn.get() > 0 {
            self.stubborn.set(self.stubborn.get() - 1);
            self.known.replace(None);
            return Err(Error::Restart { command: "systemctl".to_owned(), why: "job failed".to_owned() });
        }
        self.render();
        self.known.replace(self.runtimes());
        self.handlers().await.map(drop)
    }

    async fn handlers(&self) -> Result<Vec<String>, Error> {
        let silent = || Error::Silent { address: self.layout.socket.clone(), why: "it is down".to_owned() };
        self.known.borrow().clone().ok_or_else(silent)
    }

    async fn try_handler(&self, handler: &str) -> Result<(), Error> {
        let failed = |why: &str| Err(Error::Handler { handler: handler.to_owned(), why: why.to_owned() });
        let shim = self.host.read_text(Path::new("/opt/lighter/bin/containerd-shim-lighter-v1"))?;
        let Some((_, build)) = shim.as_deref().and_then(|shim| shim.split_once(' ')) else { return failed("no shim") };
        let fails = |name: &String| name == handler || *name == format!("{handler} {build}");
        if self.fails.borrow().iter().any(fails) { failed(&self.says.borrow()) } else { Ok(()) }
    }

    async fn sweep(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn running(&self, handlers: &[String]) -> Result<Vec<Running>, Error> {
        self.handlers().await?;
        Ok(self.pods.borrow().iter().filter(|pod| handlers.contains(&pod.handler)).cloned().collect())
    }
}

impl Daemon for &Fake {
    fn run(&self, argv: &[&str]) -> Result<Output, Error> {
        (**self).run(argv)
    }
    async fn version(&self) -> Result<(u32, u32), Error> {
        (**self).version().await
    }
    async fn dump(&self, path: Option<&Path>) -> Result<Option<String>, Error> {
        (**self).dump(path).await
    }
    async fn restart(&self) -> Result<(), Error> {
        (**self).restart().await
    }
    async fn handlers(&self) -> Result<Vec<String>, Error> {
        (**self).handlers().await
    }
    async fn try_handler(&self, handler: &str) -> Result<(), Error> {
        (**self).try_handler(handler).await
    }
    async fn sweep(&self) -> Result<(), Error> {
        (**self).sweep().await
    }
    async fn running(&self, handlers: &[String]) -> Result<Vec<Running>, Error> {
        (**self).running(handlers).await
    }
}
