//! What a toolchain embedded in a binary: who made it, of what, with what.

use std::collections::BTreeMap;

use serde::Serialize;
use wasmparser::{ComponentName, CustomSectionReader, KnownCustom, Name};

/// Bytes that a value may have; a longer one is no name or address that a person reads, and is left out.
const MAX_VALUE: usize = 4096;
/// Entries of the producers sections, which a component has one of for each module in it.
const MAX_PRODUCERS: usize = 64;

/// Texts from custom sections. Sections that can't be read count as absent: a binary is no less valid for them.
/// Source: tool-conventions `ProducersSection.md`; wasm-tools, crate `wasm-metadata`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Metadata {
    /// Values by the section's name: `name`, `description`, `authors`, `licenses`, `source`, `homepage`, `revision`,
    /// `version`.
    #[serde(flatten)]
    pub(crate) texts: BTreeMap<&'static str, String>,
    /// `language`, `processed-by` or `sdk`: names and versions, of a component also those of the modules in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) producers: BTreeMap<String, BTreeMap<String, String>>,
}

/// The sections that hold one text each.
const TEXTS: &[&str] = &["description", "authors", "licenses", "source", "homepage", "revision", "version"];

impl Metadata {
    /// Takes in a custom section; of sections inside a component (not `outermost`), the producers only.
    pub(super) fn add(&mut self, section: &CustomSectionReader<'_>, outermost: bool) {
        match section.as_known() {
            KnownCustom::Producers(fields) => {
                for field in fields.into_iter().map_while(Result::ok) {
                    for value in field.values.into_iter().map_while(Result::ok) {
                        self.add_producer(field.name, value.name, value.version);
                    }
                }
            }
            KnownCustom::Name(names) if outermost => {
                let name = names.into_iter().map_while(Result::ok).find_map(|name| match name {
                    Name::Module { name, .. } => Some(name),
                    _ => None,
                });
                self.add_text("name", name);
            }
            KnownCustom::ComponentName(names) if outermost => {
                let name = names.into_iter().map_while(Result::ok).find_map(|name| match name {
                    ComponentName::Component { name, .. } => Some(name),
                    _ => None,
                });
                self.add_text("name", name);
            }
            _ if outermost => {
                if let Some(name) = TEXTS.iter().find(|name| **name == section.name()) {
                    self.add_text(name, std::str::from_utf8(section.data()).ok());
                }
            }
            _ => {}
        }
    }

    fn add_text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value.map(str::trim)
            && !value.is_empty()
            && value.len() <= MAX_VALUE
        {
            self.texts.insert(name, value.to_owned());
        }
    }

    fn add_producer(&mut self, field: &str, name: &str, version: &str) {
        let entries: usize = self.producers.values().map(BTreeMap::len).sum();
        if entries < MAX_PRODUCERS && [field, name, version].iter().all(|text| text.len() <= MAX_VALUE) {
            self.producers.entry(field.to_owned()).or_default().insert(name.to_owned(), version.to_owned());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::Binary, *};

    #[test]
    fn reads_what_toolchains_embed() {
        let text = r#"(module $hello
            (@custom "description" " says hello ") (@custom "authors" "\ff") (@custom "version" "1.2.3") (@custom "other" "x")
            (@producers (language "Rust" "") (processed-by "rustc" "1.95.0")))"#;
        let metadata = Binary::parse("test", &wat::parse_str(text).unwrap()).unwrap().metadata;
        let texts: Vec<_> = metadata.texts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(texts, [("description", "says hello"), ("name", "hello"), ("version", "1.2.3")]);
        assert_eq!(metadata.producers["processed-by"]["rustc"], "1.95.0");
    }

    #[test]
    fn of_a_components_parts_it_takes_the_producers_only() {
        let text = r#"(component (@custom "licenses" "MIT")
            (core module (@custom "description" "inner") (@producers (language "C" "11"))))"#;
        let metadata = Binary::parse("test", &wat::parse_str(text).unwrap()).unwrap().metadata;
        assert_eq!(metadata.texts.keys().copied().collect::<Vec<_>>(), ["licenses"]);
        assert_eq!(metadata.producers["language"]["C"], "11");
    }

    #[test]
    fn a_value_without_bound_is_left_out() {
        let text = format!(r#"(module (@custom "description" "{}"))"#, "x".repeat(MAX_VALUE + 1));
        let metadata = Binary::parse("test", &wat::parse_str(&text).unwrap()).unwrap().metadata;
        assert_eq!(metadata, Metadata::default());
    }
}
