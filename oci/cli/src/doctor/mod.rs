//! What on this machine would stop the shim from working.
//!
//! Facts are gathered first, as values; each check is a function from facts to findings and looks at nothing else.
//! Must not know: how the shim works inside.

mod cache;
mod config;
mod containerd;
mod docker;
mod engines;
mod facts;
mod gather;
mod host;
mod programs;
mod version;

use serde::Serialize;

pub(crate) use gather::gather;

use facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// As it should be, or not needed here.
    Ok,
    /// Something that some would miss doesn't work.
    Warning,
    /// The shim won't work, or not for those who run this daemon.
    Problem,
}

/// The answer to one question about the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, such as `containerd`.
    pub(crate) check: &'static str,
    pub(crate) status: Status,
    /// What it is like.
    pub(crate) what: String,
    /// What to do, as exactly as can be said; lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, what: what.into(), cure: None }
    }

    fn warning(check: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, what: what.into(), cure: Some(cure.into()) }
    }

    fn problem(check: &'static str, what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, status: Status::Problem, what: what.into(), cure: Some(cure.into()) }
    }
}

/// All checks, from the shim outwards.
pub(crate) fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = programs::check(&facts.programs);
    findings.extend(engines::check(&facts.engines));
    findings.extend(containerd::check(facts));
    findings.extend(docker::check(facts.docker.as_ref()));
    findings.extend(config::check(facts));
    findings.extend(host::check(&facts.host));
    findings.extend(cache::check(&facts.cache));
    findings
}
