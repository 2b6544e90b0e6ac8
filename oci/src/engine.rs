//! Which engine runs a container: the first of those who may say something about it that does.
//!
//! The engines' names are the binaries' to know.

use std::fmt;

use crate::Error;

/// An engine's name, and who chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Such as `wasmtime`.
    pub engine: String,
    /// Who named it.
    pub by: By,
}

/// Who may choose an engine. The order is the one in which they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The command line's `--engine`.
    Flag,
    /// The container's annotation.
    Annotation,
    /// The runtime's name, such as `io.containerd.wamr.v1`.
    RuntimeName,
    /// A setting: where it was read, as [`crate::Config`] says it.
    Config(String),
    /// Nobody named one.
    Default,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("--engine"),
            Self::Annotation => write!(f, "the annotation {}engine", crate::ANNOTATION_PREFIX),
            Self::RuntimeName => f.write_str("the runtime's name"),
            Self::Config(origin) => f.write_str(origin),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Choice {
    /// Takes the first wish there is. `engines` are those of this build; the first is the default.
    ///
    /// # Errors
    /// It is none of the engines.
    pub fn new<'a>(wishes: impl IntoIterator<Item = (By, Option<&'a str>)>, engines: &[&str]) -> Result<Self, Error> {
        let wish = wishes.into_iter().find_map(|(by, engine)| Some((by, engine?)));
        let (by, engine) = wish.unwrap_or_else(|| (By::Default, engines.first().copied().unwrap_or_default()));
        if !engines.contains(&engine) {
            return Err(Error::UnknownEngine {
                name: engine.chars().take(64).collect(),
                by: by.to_string(),
                engines: listed(engines, "or"),
            });
        }
        Ok(Self { engine: engine.to_owned(), by })
    }
}

/// `a, b or c`.
#[must_use]
pub fn listed(names: &[&str], and: &str) -> String {
    match names {
        [] => "none".to_owned(),
        [only] => (*only).to_owned(),
        [some @ .., last] => format!("{} {and} {last}", some.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ENGINES: &[&str] = &["one", "two", "three"];

    #[test]
    fn the_first_who_says_something_chooses() {
        let config = || By::Config("/etc/x.toml".to_owned());
        let table = [
            (vec![], Ok(("one", By::Default))),
            (vec![(By::Annotation, None), (config(), None)], Ok(("one", By::Default))),
            (vec![(By::Annotation, None), (config(), Some("three"))], Ok(("three", config()))),
            (vec![(By::Annotation, Some("two")), (config(), Some("three"))], Ok(("two", By::Annotation))),
            (vec![(By::Annotation, Some("two")), (config(), Some("nonsense"))], Ok(("two", By::Annotation))),
            (vec![(By::Annotation, Some(""))], Err("\"\"")),
            (vec![(By::Annotation, Some("Two"))], Err("the annotation run.lighter.engine asks for the engine \"Two\"")),
            (vec![(config(), Some("four"))], Err("/etc/x.toml asks for the engine \"four\"")),
        ];
        for (wishes, expected) in table {
            match (Choice::new(wishes.clone(), ENGINES), expected) {
                (Ok(choice), Ok((engine, by))) => assert_eq!(choice, Choice { engine: engine.to_owned(), by }),
                (Err(error), Err(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected) && error.ends_with("one, two or three"), "{error}");
                }
                (found, expected) => panic!("{wishes:?}: {found:?}, not {expected:?}"),
            }
        }
    }
}
