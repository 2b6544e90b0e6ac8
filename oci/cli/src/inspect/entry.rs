//! Where a program begins.

use lighter_oci::Kind;
use serde::Serialize;

use super::{Binary, engines::interface};

/// The function or interface that an engine calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Entry {
    /// `_start` or `wasi:cli/run`.
    Command,
    /// `wasi:http/incoming-handler`, or `handler` as it is called since WASI 0.3.
    Http,
    /// There is none, for this reason: a clause that continues "NAME …".
    Missing(&'static str),
}

impl Entry {
    /// A component's interfaces that are this entry, without their versions.
    pub(crate) fn interfaces(self) -> &'static [&'static str] {
        match self {
            Self::Command => &["wasi:cli/run"],
            Self::Http => &["wasi:http/incoming-handler", "wasi:http/handler"],
            Self::Missing(_) => &[],
        }
    }

    /// The entry of a component that exports these interfaces, with or without versions. A command is one first of all.
    pub(crate) fn of_interfaces<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let has = |entry: &Self| names.clone().any(|name| entry.interfaces().contains(&interface(name)));
        [Self::Command, Self::Http].into_iter().find(has)
    }
}

/// Finds the entry by what the binary exports.
pub(crate) fn entry(binary: &Binary) -> Entry {
    match binary.kind {
        Kind::Module => entry_of_module(binary),
        Kind::Component => entry_of_component(binary),
    }
}

fn entry_of_module(binary: &Binary) -> Entry {
    let export = |name: &str| binary.exports.iter().find(|item| item.name == name);
    match export("_start") {
        Some(start) if start.ty == "func ()" => Entry::Command,
        Some(_) => Entry::Missing("exports a `_start` that is not a function without parameters and results"),
        None if export("_initialize").is_some() => {
            Entry::Missing("exports `_initialize` and no `_start`, so it is a library (reactor), not a program")
        }
        None => Entry::Missing("exports no `_start` function, so it is a library, not a program"),
    }
}

fn entry_of_component(binary: &Binary) -> Entry {
    let instances = binary.exports.iter().filter(|item| item.ty == "instance").map(|item| item.name.as_str());
    if let Some(entry) = Entry::of_interfaces(instances) {
        entry
    } else if !binary.exports.is_empty() && binary.exports.iter().all(|item| matches!(&*item.ty, "type" | "component"))
    {
        Entry::Missing("exports types only, so it is a package of interfaces (WIT), not a program")
    } else {
        Entry::Missing("exports neither wasi:cli/run nor wasi:http/incoming-handler, so it is a library, not a program")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_entry() {
        let command =
            |name: &str| format!(r#"(component (import "a:b/c@0.1.0" (instance $i)) (export "{name}" (instance $i)))"#);
        let table = [
            (r#"(module (func (export "_start")))"#.to_owned(), "command"),
            (r#"(module (func (export "_start") (param i32)))"#.to_owned(), "without parameters"),
            (r#"(module (memory (export "_start") 1))"#.to_owned(), "not a function"),
            (r#"(module (func (export "_initialize")))"#.to_owned(), "reactor"),
            ("(module)".to_owned(), "library"),
            (command("wasi:cli/run@0.2.3"), "command"),
            (command("wasi:cli/run@0.3.0"), "command"),
            (command("wasi:http/incoming-handler@0.2.0"), "http"),
            (command("wasi:http/handler@0.3.0"), "http"),
            (command("my:own/run@0.1.0"), "neither"),
            (r#"(component (type $t u8) (export "t" (type $t)))"#.to_owned(), "WIT"),
        ];
        for (text, expected) in table {
            let binary = Binary::parse("test", &wat::parse_str(&text).unwrap()).unwrap();
            let found = match entry(&binary) {
                Entry::Command => "command",
                Entry::Http => "http",
                Entry::Missing(why) => why,
            };
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
