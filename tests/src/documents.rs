//! Documents of the repository with parts that a program makes: tables of figures, and of what works.

use anyhow::{Context, Result};

/// What stands between two marks, each of which the document has once, and the document with `text` in its place.
///
/// # Errors
/// The document lacks a mark.
pub fn replaced(document: &str, [start, end]: [&str; 2], text: &str) -> Result<(String, String)> {
    let (before, rest) = document.split_once(start).with_context(|| format!("no {start:?} in the document"))?;
    let (between, after) = rest.split_once(end).with_context(|| format!("no {end:?} in the document"))?;
    Ok((between.to_owned(), [before, start, text, end, after].concat()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced() {
        let (was, is) = replaced("a<old>b<x>", ["<", ">"], "new").unwrap();
        assert_eq!((was.as_str(), is.as_str()), ("old", "a<new>b<x>"));
        for lacking in ["a", "a<b"] {
            assert!(replaced(lacking, ["<", ">"], "").is_err());
        }
    }
}
