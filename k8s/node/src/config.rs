//! containerd's configuration: what we add to it, how it is taken out again, and what a dump of it says.
//!
//! Only values in here; who reads and writes files is elsewhere. Source: containerd `docs/cri/config.md`, and dumps of
//! containerd 1.7 and 2.1.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, Item, Table};

use crate::Error;

/// The part of CRI with the runtimes, and the one that pulls images, since version 3.
const RUNTIME_PLUGIN: &str = "io.containerd.cri.v1.runtime";
const IMAGES_PLUGIN: &str = "io.containerd.cri.v1.images";
/// CRI, in version 2.
const CRI_PLUGIN: &str = "io.containerd.grpc.v1.cri";
/// Annotations that containerd hands on to the shim.
const ANNOTATIONS: &str = "run.lighter.*";
/// In the images' part: CRI pulls by itself, not by the transfer service, which does not unpack for foreign platforms.
const LOCAL_PULL: &str = "use_local_image_pull";
const SYSTEMD: &str = "SystemdCgroup";
const IMPORTS: &str = "imports";

/// The type of runtimes that containerd asks what they can do, up to 2.3; without an answer, a kubelet refuses pods with
/// `hostUsers: false`. Which shim runs is its path's matter. Source: containerd, `introspectRuntimeFeatures`.
pub const ASKED: &str = "io.containerd.runc.v2";

/// Above what we add, wherever comments are kept.
const COMMENT: &str = "# Added by lighter-node; `lighter-node uninstall` takes it out.\n";
const COMMENT_ASKED: &str = "# The type has containerd ask what the runtime can do; what runs is runtime_path.\n";

/// A runtime handler: what a RuntimeClass names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// Such as `lighter-wamr`.
    pub name: String,
    /// Such as `io.containerd.wamr.v1`, or [`ASKED`].
    pub runtime: String,
    /// The shim's path on the host.
    pub shim: String,
}

/// All that is added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addition {
    /// The handlers.
    pub handlers: Vec<Handler>,
    /// Whether systemd manages the containers' cgroups.
    pub systemd_cgroup: bool,
    /// Whether images have to be pulled by CRI itself.
    pub local_pull: bool,
}

/// How tables are named in a file of this version.
///
/// # Errors
/// Version 1 has names of its own, and no newer one is known.
fn plugin(version: i64, path: &Path) -> Result<&'static str, Error> {
    match version {
        2 => Ok(CRI_PLUGIN),
        3 | 4 => Ok(RUNTIME_PLUGIN),
        version => Err(Error::Version { path: path.to_owned(), version }),
    }
}

/// A file of containerd's configuration, or of a drop-in, that keeps its comments and its order.
#[derive(Clone, Debug)]
pub struct Document(DocumentMut);

impl Document {
    /// # Errors
    /// It is no TOML.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|error: toml_edit::TomlError| Error::Broken { path: path.to_owned(), why: error.to_string() })
    }

    /// An empty one, of this version.
    #[must_use]
    pub fn new(version: i64) -> Self {
        let mut document = DocumentMut::new();
        document.insert("version", toml_edit::value(version));
        Self(document)
    }

    /// The version that it says it has; 1 where it says nothing, as containerd takes it.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.0.get("version").and_then(Item::as_integer).unwrap_or(1)
    }

    /// The files and patterns that it imports; none where it doesn't say.
    #[must_use]
    pub fn imports(&self) -> Option<Vec<String>> {
        let array = self.0.get(IMPORTS)?.as_array()?;
        Some(array.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect())
    }

    /// Imports a file, once.
    pub fn import(&mut self, file: &str) {
        if self.imports().is_some_and(|files| files.iter().any(|known| known == file)) {
            return;
        }
        let item = self.0.entry(IMPORTS).or_insert_with(|| toml_edit::value(Array::new()));
        if let Some(array) = item.as_array_mut() {
            array.push(file);
        }
    }

    /// Whether it has a table for the pull of images, which a template can't be given a second time.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.0.get("plugins").and_then(|plugins| plugins.get(IMAGES_PLUGIN)).is_some()
    }

    /// Takes an import out. A list that is empty then goes as well.
    fn forget_import(&mut self, file: &str) {
        let Some(array) = self.0.get_mut(IMPORTS).and_then(Item::as_array_mut) else { return };
        array.retain(|value| value.as_str() != Some(file));
        if array.is_empty() {
            self.0.remove(IMPORTS);
        }
    }

    /// Adds the handlers.
    ///
    /// # Errors
    /// A table that is needed is something else here.
    pub fn add(&mut self, path: &Path, addition: &Addition) -> Result<(), Error> {
        let version = self.version();
        let runtimes = ["plugins", plugin(version, path)?, "containerd", "runtimes"];
        for (index, handler) in addition.handlers.iter().enumerate() {
            let mut table = Table::new();
            table.insert("runtime_type", toml_edit::value(&handler.runtime));
            table.insert("runtime_path", toml_edit::value(&handler.shim));
            for key in ["pod_annotations", "container_annotations"] {
                table.insert(key, toml_edit::value(Array::from_iter([ANNOTATIONS])));
            }
            if addition.systemd_cgroup {
                let mut options = Table::new();
                options.insert(SYSTEMD, toml_edit::value(true));
                table.insert("options", Item::Table(options));
            }
            if index == 0 {
                let asked = if handler.runtime == ASKED { COMMENT_ASKED } else { "" };
                table.decor_mut().set_prefix(format!("\n{COMMENT}{asked}"));
            }
            self.table(path, &runtimes)?.insert(&handler.name, Item::Table(table));
        }
        if addition.local_pull {
            self.table(path, &["plugins", IMAGES_PLUGIN])?.insert(LOCAL_PULL, toml_edit::value(true));
        }
        Ok(())
    }

    /// Names the handlers that containerd has by default, where none is named: the first that is named takes their place.
    ///
    /// # Errors
    /// A table that is needed is something else here.
    pub fn keep_defaults(&mut self, path: &Path, before: &Merged) -> Result<(), Error> {
        let names = ["plugins", plugin(self.version(), path)?, "containerd", "runtimes"];
        let named = names.iter().try_fold(self.0.as_item(), |item, name| item.get(name));
        let dumped = Self::parse(path, &before.text)?;
        let defaults = ["plugins", before.cri(), "containerd", "runtimes"];
        let defaults = defaults.iter().try_fold(dumped.0.as_item(), |item, name| item.get(name));
        if let (None, Some(defaults)) = (named, defaults.and_then(Item::as_table)) {
            for (name, runtime) in defaults {
                self.table(path, &names)?.insert(name, runtime.clone());
            }
        }
        Ok(())
    }

    /// Takes the handlers out, and what of their tables is empty then. What others wrote since stays as it is.
    pub fn take_out(&mut self, addition: &Addition, imported: Option<&str>) {
        let plugin = if self.version() == 2 { CRI_PLUGIN } else { RUNTIME_PLUGIN };
        for handler in &addition.handlers {
            prune(self.0.as_table_mut(), &["plugins", plugin, "containerd", "runtimes", &handler.name]);
        }
        if addition.local_pull {
            prune(self.0.as_table_mut(), &["plugins", IMAGES_PLUGIN, LOCAL_PULL]);
        }
        if let Some(file) = imported {
            self.forget_import(file);
        }
    }

    /// A table, made with those above it where it isn't there.
    fn table(&mut self, path: &Path, names: &[&str]) -> Result<&mut Table, Error> {
        let mut table = self.0.as_table_mut();
        for name in names {
            let item = table.entry(name).or_insert_with(|| {
                let mut table = Table::new();
                // Written only where it has values of its own.
                table.set_implicit(true);
                Item::Table(table)
            });
            if let Some(inline) = item.as_inline_table() {
                *item = Item::Table(inline.clone().into_table());
            }
            table = item.as_table_mut().ok_or_else(|| Error::Broken {
                path: path.to_owned(),
                why: format!("{} is no table", names.join(".")),
            })?;
        }
        Ok(table)
    }
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Removes what the path of names leads to, and each table above it that is empty then.
fn prune(table: &mut Table, names: &[&str]) {
    match names {
        [] => {}
        [last] => {
            table.remove(last);
        }
        [first, rest @ ..] => {
            let Some(below) = table.get_mut(first).and_then(Item::as_table_mut) else { return };
            prune(below, rest);
            if below.is_empty() {
                table.remove(first);
            }
        }
    }
}

/// What is added, as tables without a version, to be put behind other text.
///
/// # Errors
/// There are no handlers in this version.
pub fn tables(version: i64, path: &Path, addition: &Addition) -> Result<String, Error> {
    let mut document = Document::new(version);
    document.add(path, addition)?;
    document.0.remove("version");
    Ok(document.to_string().trim_start().to_owned())
}

/// What containerd makes of all its files: the answer of `containerd config dump`, or a file that is all it reads.
#[derive(Clone, Debug)]
pub struct Merged {
    text: String,
    table: toml::Table,
}

impl Merged {
    /// # Errors
    /// It is no TOML.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let parsed = toml::from_str(text);
        let table = parsed.map_err(|error| Error::Broken { path: path.to_owned(), why: error.to_string() })?;
        Ok(Self { text: text.to_owned(), table })
    }

    /// The version of its format.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.table.get("version").and_then(toml::Value::as_integer).unwrap_or(1)
    }

    fn at(&self, names: &[&str]) -> Option<&toml::Value> {
        let [first, rest @ ..] = names else { return None };
        rest.iter().try_fold(self.table.get(*first)?, |value, name| value.get(name))
    }

    fn cri(&self) -> &'static str {
        if self.version() == 2 { CRI_PLUGIN } else { RUNTIME_PLUGIN }
    }

    fn runtime(&self, handler: &str) -> Option<&toml::Value> {
        self.at(&["plugins", self.cri(), "containerd", "runtimes", handler])
    }

    /// What runs a handler: the shim's path, or else the runtime's name.
    #[must_use]
    pub fn runs(&self, handler: &str) -> Option<String> {
        let runtime = self.runtime(handler)?;
        let text = |key| runtime.get(key).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
        Some(text("runtime_path").or(text("runtime_type")).unwrap_or("nothing").to_owned())
    }

    /// Whether the node's own containers have their cgroups from systemd: what the default runtime is told.
    #[must_use]
    pub fn systemd_cgroup(&self) -> bool {
        let default = self.at(&["plugins", self.cri(), "containerd", "default_runtime_name"]);
        let default = default.and_then(toml::Value::as_str).filter(|name| !name.is_empty()).unwrap_or("runc");
        let says = |handler| self.runtime(handler)?.get("options")?.get(SYSTEMD)?.as_bool();
        says(default).or_else(|| says("runc")).unwrap_or(false)
    }

    /// Whether CRI is off, as Docker's packages of containerd have it.
    #[must_use]
    pub fn disables_cri(&self) -> bool {
        let disabled = self.table.get("disabled_plugins").and_then(toml::Value::as_array).into_iter().flatten();
        disabled.filter_map(toml::Value::as_str).any(|plugin| ["cri", CRI_PLUGIN, RUNTIME_PLUGIN].contains(&plugin))
    }

    /// Whether images are pulled by CRI itself.
    #[must_use]
    pub fn local_pull(&self) -> bool {
        self.at(&["plugins", IMAGES_PLUGIN, LOCAL_PULL]).and_then(toml::Value::as_bool).unwrap_or(false)
    }

    /// What of an addition is not in it.
    #[must_use]
    pub fn missing(&self, addition: &Addition) -> Option<String> {
        let handlers = addition.handlers.iter();
        let mut missing = handlers.filter(|handler| {
            let runtime = self.runtime(&handler.name);
            let options = runtime.and_then(|runtime| runtime.get("options")?.get(SYSTEMD)?.as_bool());
            self.runs(&handler.name).as_deref() != Some(&handler.shim)
                || runtime.and_then(|runtime| runtime.get("runtime_type")?.as_str()) != Some(&handler.runtime)
                || options.unwrap_or(false) != addition.systemd_cgroup
        });
        let pull = || (addition.local_pull && !self.local_pull()).then(|| LOCAL_PULL.to_owned());
        missing.next().map(|handler| format!("the handler {:?}", handler.name)).or_else(pull)
    }

    /// What was before and is no more, or is different, our own apart: keys with dots.
    #[must_use]
    pub fn lost(&self, after: &Self, addition: &Addition) -> Vec<String> {
        let flat = |merged: &Self| {
            let mut leaves = BTreeMap::new();
            for (key, value) in &merged.table {
                flatten(key, value, &mut leaves);
            }
            leaves
        };
        let ours = |key: &str| {
            let runtime = |handler: &Handler| key.contains(&format!(".containerd.runtimes.{}.", handler.name));
            key == IMPORTS || key.ends_with(LOCAL_PULL) || addition.handlers.iter().any(runtime)
        };
        let after = flat(after);
        let changed = |(key, value): &(String, toml::Value)| !ours(key) && after.get(key) != Some(value);
        flat(self).into_iter().filter(changed).map(|(key, _)| key).collect()
    }
}

fn flatten(path: &str, value: &toml::Value, leaves: &mut BTreeMap<String, toml::Value>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(&format!("{path}.{key}"), value, leaves);
            }
        }
        value => {
            leaves.insert(path.to_owned(), value.clone());
        }
    }
}

/// Whether a value of `imports` is a pattern, and the folder whose files it takes.
#[must_use]
pub fn pattern_folder(import: &str) -> Option<&Path> {
    let path = Path::new(import);
    (path.is_absolute() && path.file_name()? == "*.toml").then(|| path.parent()).flatten()
}

/// What `use_local_image_pull` is for: since then CRI pulls through the transfer service.
#[must_use]
pub fn pulls_by_transfer(version: (u32, u32)) -> bool {
    version >= (2, 1)
}

/// Whether tables of files that are imported are merged, key by key. Before, a plugin's whole table replaces the one
/// before it: measured on 1.7.24, where an imported handler loses the pause image.
#[must_use]
pub fn merges_imports(version: (u32, u32)) -> bool {
    version >= (2, 0)
}

/// Whether a table of runtimes is added to the ones that there are by default. Before, it takes their place.
#[must_use]
pub fn adds_to_defaults(version: (u32, u32)) -> bool {
    version >= (2, 0)
}

/// Whether runtimes of the type [`ASKED`] are asked. Later ones ask every runtime, and these still.
#[must_use]
pub fn asks_for_features(version: (u32, u32)) -> bool {
    version >= (2, 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/containerd/config.toml";

    fn addition(systemd_cgroup: bool, local_pull: bool) -> Addition {
        let handler = |name: &str| Handler {
            name: name.to_owned(),
            runtime: "io.containerd.lighter.v1".to_owned(),
            shim: format!("/opt/lighter/bin/{name}"),
        };
        Addition { handlers: vec![handler("lighter"), handler("lighter-wamr")], systemd_cgroup, local_pull }
    }

    /// Files as people have them, of each version.
    const FILES: &[&str] = &[
        "version = 2\n",
        "version = 3",
        "version = 4\n\n# a comment\n[debug]\n  level = \"debug\" # why\n",
        "# kubeadm\nversion = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"pause\"\n    \
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n      default_runtime_name = \"runc\"\n      \
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n        runtime_type = \"io.containerd.runc.v2\"\n\
         \n[grpc]\n  address = \"/run/containerd/containerd.sock\"\n",
        "version = 3\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = 'overlayfs'\n\
         [plugins.'io.containerd.cri.v1.runtime']\ncontainerd = { runtimes = { runc = { runtime_type = 'r' } } }\n",
        "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.runtime_type = \"r\"\n",
    ];

    #[test]
    fn what_is_added_is_there_and_nothing_is_lost_and_it_can_be_taken_out() {
        for text in FILES {
            for (systemd, pull) in [(false, false), (true, true)] {
                let addition = addition(systemd, pull);
                let before = Merged::parse(Path::new(PATH), text).unwrap();
                assert!(before.missing(&addition).is_some(), "{text}");
                let mut document = Document::parse(Path::new(PATH), text).unwrap();
                document.add(Path::new(PATH), &addition).unwrap();
                let added = document.to_string();
                let after = Merged::parse(Path::new(PATH), &added).unwrap_or_else(|error| panic!("{error}\n{added}"));
                assert_eq!(after.missing(&addition), None, "{added}");
                assert_eq!(before.lost(&after, &addition), [""; 0], "{added}");
                assert_eq!(added.matches(COMMENT).count(), 1, "{added}");
                document.take_out(&addition, None);
                let again = Merged::parse(Path::new(PATH), &document.to_string()).unwrap();
                assert_eq!(again.table, before.table, "{document}");
            }
        }
    }

    #[test]
    fn a_file_keeps_its_text_but_for_what_is_added() {
        let text = "# mine\nversion = 2\n\n[debug]\n  level  = \"info\"   # as is\n";
        let mut document = Document::parse(Path::new(PATH), text).unwrap();
        document.add(Path::new(PATH), &addition(false, false)).unwrap();
        assert!(document.to_string().starts_with(text), "{document}");
    }

    #[test]
    fn versions_without_handlers_are_refused() {
        for (text, version) in [("", 1), ("version = 1", 1), ("version = 5", 5)] {
            let mut document = Document::parse(Path::new(PATH), text).unwrap();
            let error = document.add(Path::new(PATH), &addition(false, false)).unwrap_err().to_string();
            assert!(error.contains(&format!("configuration version {version};")), "{error}");
        }
        let mut odd = Document::parse(Path::new(PATH), "version = 2\nplugins = 7").unwrap();
        assert!(odd.add(Path::new(PATH), &addition(false, false)).unwrap_err().to_string().contains("is no table"));
        assert!(Document::parse(Path::new(PATH), "version = ").unwrap_err().to_string().contains("broken already"));
    }

    #[test]
    fn imports_are_added_once_and_taken_out() {
        for text in ["version = 3\n[debug]\n", "version = 3\nimports = []\n", "version = 3\nimports = ['/a/*.toml']\n"]
        {
            let mut document = Document::parse(Path::new(PATH), text).unwrap();
            document.import("/l.toml");
            document.import("/l.toml");
            let imports = document.imports().unwrap();
            assert_eq!(imports.iter().filter(|file| *file == "/l.toml").count(), 1, "{document}");
            let parsed = Merged::parse(Path::new(PATH), &document.to_string()).unwrap();
            assert!(parsed.at(&["imports"]).is_some(), "{document}");
            document.take_out(&addition(false, false), Some("/l.toml"));
            assert!(!document.to_string().contains("/l.toml"), "{document}");
        }
        assert_eq!(pattern_folder("/etc/containerd/conf.d/*.toml"), Some(Path::new("/etc/containerd/conf.d")));
        for no in ["/etc/containerd/a.toml", "conf.d/*.toml", "/a/*.conf"] {
            assert_eq!(pattern_folder(no), None);
        }
    }

    #[test]
    fn the_cgroup_driver_is_the_default_runtimes() {
        let table = [
            ("version = 2\n", false),
            (
                "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = true",
                true,
            ),
            (
                "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true",
                true,
            ),
            (
                "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'crun'\n\
                 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]\nSystemdCgroup = false\n\
                 [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true",
                false,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(Merged::parse(Path::new(PATH), text).unwrap().systemd_cgroup(), expected, "{text}");
        }
    }

    #[test]
    fn what_an_import_replaces_is_told() {
        let cri = "[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image";
        let before = Merged::parse(Path::new(PATH), &format!("version = 2\n{cri} = 'mine'")).unwrap();
        let after = Merged::parse(Path::new(PATH), &format!("version = 2\n{cri} = 'default'")).unwrap();
        let lost = before.lost(&after, &addition(false, false));
        assert_eq!(lost, ["plugins.io.containerd.grpc.v1.cri.sandbox_image"]);
    }
}
