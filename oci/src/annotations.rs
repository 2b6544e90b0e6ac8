//! What people tell Lighter of one container: annotations that start with `run.lighter.`.

use std::collections::HashMap;

use crate::Error;

/// Prefix of every annotation that Lighter reads.
pub const ANNOTATION_PREFIX: &str = "run.lighter.";

/// All that there are, without their prefix.
const KNOWN: &[&str] = &[
    "engine",
    "network",
    "http.address",
    "http.metrics",
    "http.reuse",
    "http.timeout",
    "http.linger",
    "http.memory",
    "http.concurrency",
    "http.allowed-hosts",
];

/// A container's annotations, of which the known ones are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Annotations<'a>(&'a HashMap<String, String>);

impl<'a> Annotations<'a> {
    /// # Errors
    /// One has the prefix and isn't known: a typing mistake must not lose a limit in silence.
    pub(crate) fn new(annotations: &'a HashMap<String, String>) -> Result<Self, Error> {
        // The first by name, so that the same mistake always gives the same message.
        let unknown = annotations.keys().filter_map(|name| Some((name, name.strip_prefix(ANNOTATION_PREFIX)?)));
        match unknown.filter(|(_, rest)| !KNOWN.contains(rest)).min() {
            None => Ok(Self(annotations)),
            Some((name, rest)) => Err(Error::UnknownAnnotation {
                name: name.clone(),
                nearest: format!("{ANNOTATION_PREFIX}{}", nearest(rest)),
            }),
        }
    }

    /// The value of one, if it is there. `name` is without the prefix.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        debug_assert!(KNOWN.contains(&name), "{name} is not listed");
        self.0.get(&format!("{ANNOTATION_PREFIX}{name}")).map(String::as_str)
    }

    /// The value of one as `parse` understands it, if it is there.
    ///
    /// # Errors
    /// It has another value than `takes` describes.
    pub(crate) fn parse<T>(
        self,
        name: &'static str,
        takes: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        parse(value.trim()).map(Some).ok_or_else(|| Self::wrong(name, value, takes))
    }

    /// The error about a value of one that isn't what it takes.
    pub(crate) fn wrong(name: &str, value: &str, takes: impl Into<String>) -> Error {
        Error::Annotation { name: format!("{ANNOTATION_PREFIX}{name}"), value: shortened(value), takes: takes.into() }
    }
}

/// The known one that takes the fewest changes.
fn nearest(name: &str) -> &'static str {
    let name = shortened(name);
    KNOWN.iter().copied().min_by_key(|known| distance(known, &name)).unwrap_or_default()
}

/// The start of what may be very long.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Levenshtein's: how many letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_names_what_was_meant() {
        let table = [
            ("run.lighter.networks", "run.lighter.network"),
            ("run.lighter.http.adress", "run.lighter.http.address"),
            ("run.lighter.http.allowed_hosts", "run.lighter.http.allowed-hosts"),
            ("run.lighter.Engine", "run.lighter.engine"),
            ("run.lighter.", "run.lighter.engine"),
        ];
        for (name, expected) in table {
            let annotations = HashMap::from([(name.to_owned(), "x".to_owned())]);
            let error = Annotations::new(&annotations).unwrap_err().to_string();
            assert!(error.contains(name) && error.ends_with(&format!("{expected}?")), "{error}");
        }
        let long = HashMap::from([(format!("run.lighter.{}", "x".repeat(100_000)), String::new())]);
        assert!(Annotations::new(&long).is_err());
    }

    #[test]
    fn those_of_others_are_left_alone() {
        let annotations = ["run.lighter.engine", "run.lighterage.x", "io.kubernetes.cri.container-type", "run"];
        let annotations: HashMap<_, _> = annotations.map(|name| (name.to_owned(), "x".to_owned())).into();
        assert_eq!(Annotations::new(&annotations).unwrap().get("engine"), Some("x"));
        assert_eq!(Annotations::new(&annotations).unwrap().get("network"), None);
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
