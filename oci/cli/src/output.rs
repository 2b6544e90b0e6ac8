//! What a command tells: text or JSON on stdout, progress and errors on stderr.

use std::io::{IsTerminal, Write};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

/// Shown by `lighter --version`.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"));

/// Where and in which form to tell.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    /// Whether bars make sense: standard error is a terminal, and nobody asked for quiet or JSON.
    progress: bool,
    bars: MultiProgress,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let progress = !quiet && !json && std::io::stderr().is_terminal();
        Self { json, quiet, progress, bars: MultiProgress::new() }
    }

    /// The command's result: one JSON document, or what `text` makes of it. A closed pipe is no error.
    pub(crate) fn result<T: serde::Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) {
        let line =
            if self.json { serde_json::to_string_pretty(value).unwrap_or_default() } else { lines(&text(value)) };
        let line = line.trim_end();
        // A list of nothing is no empty line.
        if !line.is_empty() {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    /// A line for people, on stderr, such as what a slow step is about.
    pub(crate) fn note(&self, line: &str) {
        if self.json {
            return;
        }
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{}", lines(line));
        });
    }

    /// A blob of `size` bytes begins to move: a bar on a terminal, otherwise a line when it is done.
    pub(crate) fn transfer(&self, digest: &str, size: u64) -> Transfer<'_> {
        let name = short(digest).to_owned();
        let bar = self.progress.then(|| {
            let style = ProgressStyle::with_template("{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {eta}");
            let bar = ProgressBar::new(size).with_prefix(name.clone());
            self.bars.add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        });
        Transfer { output: self, name, size, bar }
    }

    /// Why a command failed, with its causes, on stderr.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        let _ = writeln!(std::io::stderr(), "lighter: {}", lines(&format!("{error:#}")));
    }
}

/// A blob on its way.
#[derive(Debug)]
pub(crate) struct Transfer<'a> {
    output: &'a Output,
    name: String,
    size: u64,
    bar: Option<ProgressBar>,
}

impl Transfer<'_> {
    /// So many bytes are there. May go back, after a transfer that can't be continued.
    pub(crate) fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// What became of it, such as `pulled`.
    pub(crate) fn done(self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.output.quiet {
            self.output.note(&format!("{what} {} {}", self.name, HumanBytes(self.size)));
        }
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A digest as people compare it: `sha256:` and 12 digits.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(.."sha256:".len() + 12).unwrap_or(digest)
}

/// Without characters that move the cursor, colour the terminal, or reverse what is read: names are strangers'.
pub(crate) fn plain(text: &str) -> String {
    escaped(text, &[])
}

/// [`plain`], of text that has lines and columns.
fn lines(text: &str) -> String {
    escaped(text, &['\n', '\t'])
}

fn escaped(text: &str, kept: &[char]) -> String {
    let misleads = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        if misleads(c) && !kept.contains(&c) {
            plain.extend(c.escape_unicode())
        } else {
            plain.push(c)
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(lines("a\tb\nc \u{1b}[2Jd\r\u{9b}e\u{202e}"), "a\tb\nc \\u{1b}[2Jd\\u{d}\\u{9b}e\\u{202e}");
        assert_eq!(plain("a\nb ü"), "a\\u{a}b ü");
    }
}
