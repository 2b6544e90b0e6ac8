//! `lighter doctor`: whether this machine can run containers with the shim, and what to do where it can't.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use crate::{
    doctor::{self, Finding, Status},
    output::Output,
};

/// Find what on this machine would stop containers from running, and its cure
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lighter doctor          as root, to see daemons' environments too
  lighter doctor --json | jq '.findings[] | select(.status == \"problem\")'

Changes nothing. Exit code 1 if there is a problem; warnings alone are 0.")]
pub(crate) struct Args {}

#[derive(Serialize)]
struct Report {
    problems: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> Result<ExitCode> {
        let findings = doctor::diagnose(&doctor::gather().await);
        let count = |status| findings.iter().filter(|finding| finding.status == status).count();
        let report = Report { problems: count(Status::Problem), warnings: count(Status::Warning), findings };
        output.result(&report, |report| text(report, io::stdout().is_terminal()));
        Ok(if report.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A line a finding, its cure below.
fn text(report: &Report, terminal: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match (finding.status, terminal) {
            (Status::Ok, true) => "✓",
            (Status::Warning, true) => "!",
            (Status::Problem, true) => "✗",
            (Status::Ok, false) => "ok     ",
            (Status::Warning, false) => "warning",
            (Status::Problem, false) => "problem",
        };
        let _ = writeln!(text, "{mark} {:16} {}", finding.check, finding.what);
        for line in finding.cure.iter().flat_map(|cure| cure.lines()) {
            let _ = writeln!(text, "{:indent$} {line}", "", indent = mark.chars().count() + 17);
        }
    }
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let _ = match (report.problems, report.warnings) {
        (0, 0) => writeln!(text, "\nnothing stands in the way"),
        (problems, warnings) => writeln!(text, "\n{}, {}", plural(problems, "problem"), plural(warnings, "warning")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_for_terminals_and_words_for_files() {
        let finding = |status, cure: Option<&str>| Finding {
            check: "docker",
            status,
            what: "old".to_owned(),
            cure: cure.map(str::to_owned),
        };
        let report = Report {
            problems: 1,
            warnings: 0,
            findings: vec![finding(Status::Ok, None), finding(Status::Problem, Some("first\nsecond"))],
        };
        assert_eq!(
            text(&report, true),
            "✓ docker           old\n✗ docker           old\n                   first\n                   second\n\n1 problem, 0 warnings\n"
        );
        assert!(
            text(&report, false).starts_with("ok      docker           old\nproblem docker"),
            "{}",
            text(&report, false)
        );
    }
}
