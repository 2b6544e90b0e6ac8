//! The engines: which one runs what doesn't ask for another, and whether each can be started.

use lighter_oci::Config;

use super::{Finding, facts::Engines};

const CHECK: &str = "engines";

pub(super) fn check(engines: &Engines) -> Vec<Finding> {
    let mut findings = vec![default(engines)];
    for engine in &engines.installed {
        let Some(problem) = &engine.problem else { continue };
        let what = format!("{}: {problem}", engine.name);
        let cure = format!("install what it lacks, or remove {}", engine.runner.display());
        // The default's own finding is the problem.
        findings.push(Finding::warning(CHECK, what, cure));
    }
    findings
}

fn default(engines: &Engines) -> Finding {
    let choice = match &engines.default {
        Ok(choice) => choice,
        Err(error) => return Finding::problem(CHECK, error.clone(), format!("mend {}, or remove it", Config::NODE)),
    };
    let by = match choice.by {
        lighter_oci::By::Default => "by default".to_owned(),
        _ => format!("by {}", choice.by),
    };
    let sound: Vec<_> = engines.installed.iter().filter(|engine| engine.problem.is_none()).collect();
    if !sound.iter().any(|engine| engine.name == choice.engine) {
        let what = format!("{} is to run what asks for no other ({by}), but can't be started", choice.engine);
        let cure = format!("install lighter-{}, or name another engine in {}", choice.engine, Config::NODE);
        return Finding::problem(CHECK, what, cure);
    }
    let names = sound.iter().map(|engine| {
        let version = engine.version.as_deref().unwrap_or_default();
        let by = if engine.name == choice.engine { format!(", {by}") } else { String::new() };
        format!("{} {version}{by}", engine.name)
    });
    Finding::ok(CHECK, names.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use lighter_oci::{By, Choice};

    use super::{super::Status, *};
    use crate::engines::Installed;

    fn engine(name: &str, problem: Option<&str>) -> Installed {
        Installed {
            name: name.to_owned(),
            runner: format!("/bin/lighter-{name}").into(),
            version: problem.is_none().then(|| "1.0".to_owned()),
            runs: Vec::new(),
            compiler: None,
            default_by: None,
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn a_default_that_can_not_start_is_a_problem_and_another_a_warning() {
        let by_file = || By::Config("the configuration /etc/x.toml".to_owned());
        let choice = |engine: &str, by| Ok(Choice { engine: engine.to_owned(), by });
        let two = || vec![engine("a", None), engine("b", Some("can't start: no libb.so"))];
        let table = [
            (choice("a", By::Default), vec![engine("a", None)], vec![(Status::Ok, "a 1.0, by default")]),
            (
                choice("a", by_file()),
                two(),
                vec![
                    (Status::Ok, "a 1.0, by the configuration /etc/x.toml"),
                    (Status::Warning, "b: can't start: no libb.so"),
                ],
            ),
            (
                choice("b", by_file()),
                two(),
                vec![(Status::Problem, "b is to run what asks for no other"), (Status::Warning, "b: can't start")],
            ),
            (choice("c", By::Default), two()[..1].to_vec(), vec![(Status::Problem, "c is to run")]),
            (
                Err("configuration x: bad".to_owned()),
                two()[..1].to_vec(),
                vec![(Status::Problem, "configuration x: bad")],
            ),
        ];
        for (default, installed, expected) in table {
            let findings = check(&Engines { default, installed });
            assert_eq!(findings.len(), expected.len(), "{findings:?}");
            for (finding, (status, what)) in findings.iter().zip(expected) {
                assert!(finding.status == status && finding.what.starts_with(what), "{finding:?}");
            }
        }
    }
}
