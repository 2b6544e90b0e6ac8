//! Lighter's own programs: all there, in one folder, of one build.

use super::{
    Finding,
    facts::{Program, Programs},
};

const CHECK: &str = "programs";
const REINSTALL: &str = "install all of one build into one folder: make install PREFIX=/usr/local";

pub(super) fn check(programs: &Programs) -> Vec<Finding> {
    let folder = programs.folder.display();
    let those = |which: &dyn Fn(&Program) -> Option<String>| {
        let told: Vec<String> = programs.found.iter().filter_map(which).collect();
        (!told.is_empty()).then(|| told.join(", "))
    };
    let missing = those(&|program| (!program.there).then(|| format!("{} ({})", program.name, program.purpose)));
    let others = those(&|program| {
        let version = program.version.as_ref().filter(|version| **version != programs.version)?;
        Some(format!("{} is {version}", program.name))
    });
    let silent = those(&|program| (program.there && program.version.is_none()).then(|| program.name.to_owned()));
    let findings: Vec<_> = [
        missing.map(|names| Finding::problem(CHECK, format!("not beside lighter in {folder}: {names}"), REINSTALL)),
        others.map(|told| Finding::problem(CHECK, format!("lighter is {}, but {told}", programs.version), REINSTALL)),
        silent.map(|names| Finding::warning(CHECK, format!("tell no version: {names} in {folder}"), REINSTALL)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if findings.is_empty() {
        let names: Vec<_> = programs.found.iter().map(|program| program.name).collect();
        return vec![Finding::ok(CHECK, format!("{} {} in {folder}", names.join(", "), programs.version))];
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn all_must_be_there_and_of_one_build() {
        let programs = |there, version: Option<&str>| Programs {
            folder: "/usr/local/bin".into(),
            version: "0.1.0 (abc)".to_owned(),
            found: vec![Program {
                name: "lighter-compile",
                purpose: "the compiler",
                there,
                version: version.map(str::to_owned),
            }],
        };
        let table = [
            (programs(true, Some("0.1.0 (abc)")), Status::Ok, "0.1.0 (abc) in /usr/local/bin"),
            (
                programs(true, Some("0.1.0 (def)")),
                Status::Problem,
                "lighter is 0.1.0 (abc), but lighter-compile is 0.1.0 (def)",
            ),
            (programs(true, None), Status::Warning, "tell no version"),
            (programs(false, None), Status::Problem, "in /usr/local/bin: lighter-compile (the compiler)"),
        ];
        for (programs, status, what) in table {
            let findings = check(&programs);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].status == status && findings[0].what.contains(what), "{findings:?}");
        }
    }
}
