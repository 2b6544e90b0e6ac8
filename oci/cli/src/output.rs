//! What a command tells: text or JSON on stdout, progress and errors on stderr.

use std::io::{IsTerminal, Write};

/// Shown by `lighter --version`.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"));

/// Where and in which form to tell.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    progress: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, progress: !quiet && !json && std::io::stderr().is_terminal() }
    }

    /// Whether progress bars make sense: standard error is a terminal, and nobody asked for quiet or JSON.
    pub(crate) fn shows_progress(&self) -> bool {
        self.progress
    }

    /// The command's result: one JSON document, or what `text` makes of it. A closed pipe is no error.
    pub(crate) fn result<T: serde::Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        let line = if self.json { serde_json::to_string_pretty(value).unwrap_or_default() } else { text(value) };
        let _ = writeln!(std::io::stdout(), "{}", line.trim_end());
    }

    /// A line for people, on stderr, such as what a slow step is about.
    pub(crate) fn note(&self, line: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// Why a command failed, with its causes, on stderr.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        let _ = writeln!(std::io::stderr(), "lighter: {error:#}");
    }
}
