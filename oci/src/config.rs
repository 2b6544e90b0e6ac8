//! What holds for all containers of a node, or of one of its runtimes: a few settings in TOML.

use std::{
    fs::File,
    io::{self, Read},
    num::NonZeroU32,
    path::Path,
};

use toml::{Table, Value};

use crate::{Error, quantity};

/// Bytes that a configuration may have.
const MOST: u64 = 64 << 10;

/// What a configuration says. Nothing has a default here: another configuration may say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where it was read: a file's path, or what to call it where it came without one.
    pub origin: String,
    /// The engine that runs what doesn't ask for another.
    pub engine: Option<String>,
    /// Whether systemd manages the containers' cgroups.
    pub systemd_cgroup: Option<bool>,
    /// Bytes that the cache may hold for each engine.
    pub cache_size: Option<u64>,
    /// Compilers that may be at work at once while containers wait for them.
    pub compilers: Option<NonZeroU32>,
    /// Whether a guest's container may ask to be privileged, which its seal takes away.
    pub allow_privileged: Option<bool>,
}

impl Config {
    /// The node's configuration.
    pub const NODE: &'static str = "/etc/lighter/config.toml";

    /// The node's configuration; where there is none, it says nothing.
    ///
    /// # Errors
    /// It is there, but can't be read or holds what isn't a setting.
    pub fn of_node() -> Result<Self, Error> {
        match Self::read(Path::new(Self::NODE)) {
            Err(Error::ReadConfig { source, .. })
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(Self { origin: Self::NODE.to_owned(), ..Self::default() })
            }
            read => read,
        }
    }

    /// A file of the host's, which must be there.
    ///
    /// # Errors
    /// It can't be read or holds what isn't a setting.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::ReadConfig { path: path.to_owned(), source };
        let mut text = String::new();
        File::open(path).map_err(failed)?.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
        Self::parse(path.display().to_string(), &text)
    }

    /// `origin` says where the text is from.
    ///
    /// # Errors
    /// It is no TOML, or holds what isn't a setting.
    pub fn parse(origin: String, text: &str) -> Result<Self, Error> {
        let refused = |why: String| Error::Config { origin: origin.clone(), why };
        if text.len() as u64 > MOST {
            return Err(refused(format!("it has more than {MOST} bytes")));
        }
        let table: Table = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            refused(format!("line {line}: {}", error.message().replace('\n', ", ")))
        })?;
        let mut config = Self { origin: origin.clone(), ..Self::default() };
        for (key, value) in table {
            let takes = match (key.as_str(), &value) {
                ("engine", Value::String(engine)) => {
                    config.engine = Some(engine.clone());
                    continue;
                }
                // runc's name of it as well: containerd's CRI hands over the options of a runtime as they are.
                ("systemd-cgroup" | "SystemdCgroup", Value::Boolean(yes)) => {
                    config.systemd_cgroup = Some(*yes);
                    continue;
                }
                ("cache-size", value) if bytes(value).is_some() => {
                    config.cache_size = bytes(value);
                    continue;
                }
                ("compilers", value) if count(value).is_some() => {
                    config.compilers = count(value);
                    continue;
                }
                ("allow-privileged", Value::Boolean(yes)) => {
                    config.allow_privileged = Some(*yes);
                    continue;
                }
                ("engine", _) => "an engine's name, such as \"wasmtime\"",
                ("systemd-cgroup" | "SystemdCgroup" | "allow-privileged", _) => "true or false",
                ("cache-size", _) => "a size, such as \"20GiB\"",
                ("compilers", _) => "a number from 1 on",
                _ => {
                    let key = key.chars().take(64).collect::<String>();
                    return Err(refused(format!(
                        "there is no setting {key:?}; there are engine, systemd-cgroup, cache-size, compilers and \
                         allow-privileged"
                    )));
                }
            };
            return Err(refused(format!("{key} takes {takes}")));
        }
        Ok(config)
    }
}

fn bytes(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok().filter(|bytes| *bytes > 0),
        Value::String(text) => quantity::bytes(text).ok(),
        _ => None,
    }
}

fn count(value: &Value) -> Option<NonZeroU32> {
    value.as_integer().and_then(|count| u32::try_from(count).ok()).and_then(NonZeroU32::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_key_sets_one_value() {
        let default = Config { origin: "x".to_owned(), ..Config::default() };
        let table = [
            ("", default.clone()),
            ("# nothing\n", default.clone()),
            ("engine = \"wamr\"", Config { engine: Some("wamr".to_owned()), ..default.clone() }),
            ("systemd-cgroup = true", Config { systemd_cgroup: Some(true), ..default.clone() }),
            ("SystemdCgroup = false", Config { systemd_cgroup: Some(false), ..default.clone() }),
            ("cache-size = \"20GiB\"", Config { cache_size: Some(20 << 30), ..default.clone() }),
            ("cache-size = 4096", Config { cache_size: Some(4096), ..default.clone() }),
            ("compilers = 4", Config { compilers: NonZeroU32::new(4), ..default.clone() }),
            ("allow-privileged = true", Config { allow_privileged: Some(true), ..default }),
        ];
        for (text, expected) in table {
            assert_eq!(Config::parse("x".to_owned(), text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_setting_is_told_with_its_file() {
        let long = "#".repeat(70_000);
        let table = [
            ("engin = \"wamr\"", "there is no setting \"engin\"; there are engine,"),
            ("[annotations]\na = 1", "there is no setting \"annotations\""),
            ("engine = 1", "engine takes an engine's name"),
            ("systemd-cgroup = \"yes\"", "systemd-cgroup takes true or false"),
            ("allow-privileged = 1", "allow-privileged takes true or false"),
            ("cache-size = 0", "cache-size takes a size"),
            ("cache-size = -1", "cache-size takes a size"),
            ("cache-size = \"much\"", "cache-size takes a size"),
            ("compilers = 0", "compilers takes a number from 1 on"),
            ("compilers = \"all\"", "compilers takes a number from 1 on"),
            ("\nengine = wamr", "line 2: "),
            ("engine = \"a\"\nengine = \"b\"", "line 2: "),
            (&long, "more than 65536 bytes"),
        ];
        for (text, expected) in table {
            let error = Config::parse("/etc/x.toml".to_owned(), text).unwrap_err().to_string();
            assert!(error.starts_with("configuration /etc/x.toml: ") && error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("read configuration {}: ", path.display())), "{error}");
        std::fs::write(&path, "engine = \"two\"").unwrap();
        assert_eq!(Config::read(&path).unwrap().engine.as_deref(), Some("two"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(Config::read(&path).is_err());
    }
}
