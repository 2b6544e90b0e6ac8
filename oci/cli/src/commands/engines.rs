//! `lighter engines`: which engines are installed, and which of them can run a binary.

use std::{fmt::Write, process::ExitCode};

use anyhow::Result;
use serde::Serialize;

use crate::{
    engines::{self, Installed},
    inspect::{self, Binary, Engine, Subject},
    output::Output,
};

/// List the engines that are installed, or those that can run a binary
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lighter engines
  lighter engines --for app.wasm
  lighter engines --for - --json < app.wasm | jq -r '.engines[] | select(.runs) | .name'

Which engine runs a container is said by the first of these that says something: the annotation run.lighter.engine; the
runtime's name, such as io.containerd.wamr.v1; the options that containerd's or Docker's configuration has for the runtime;
/etc/lighter/config.toml. Otherwise it is Wasmtime. `lighter run --engine` comes before all of them.

Exit code 1 if no installed engine can run the binary.")]
pub(crate) struct Args {
    /// Tell which can run this .wasm file, image, or `-` for standard input
    #[arg(long = "for", value_name = "FILE|REF")]
    subject: Option<String>,
}

#[derive(Serialize)]
struct List {
    engines: Vec<Installed>,
}

#[derive(Serialize)]
struct Verdict {
    engines: Vec<Engine>,
}

impl Args {
    pub(crate) async fn run(self, output: &Output) -> Result<ExitCode> {
        let Some(subject) = self.subject else {
            let default = engines::choose(None, None)?;
            output.result(&List { engines: engines::installed(Some(&default)).await }, list);
            return Ok(ExitCode::SUCCESS);
        };
        let Subject { name, module, .. } = Subject::find(&subject, false, output).await?;
        let binary = Binary::parse(&name, &module?)?;
        let verdict = Verdict { engines: inspect::judge_installed(&binary).await };
        output.result(&verdict, verdicts);
        let any = verdict.engines.iter().any(|engine| engine.runs);
        Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A line an engine.
fn list(list: &List) -> String {
    let mut text = String::new();
    for engine in &list.engines {
        let version = engine.version.as_deref().unwrap_or("-");
        let what = match &engine.problem {
            Some(problem) => problem.clone(),
            None => {
                let runs = engine.runs.join(", ");
                let how = match &engine.compiler {
                    Some(compiler) => format!(", compiled by {compiler}"),
                    None if engine.name == engines::NATIVE => String::new(),
                    None => ", interpreted".to_owned(),
                };
                format!("{runs}{how}")
            }
        };
        let default = match &engine.default_by {
            Some(by) if by == "default" => " (default)".to_owned(),
            Some(by) => format!(" (default, by {by})"),
            None => String::new(),
        };
        let _ = writeln!(text, "{:10} {version:10} {what}{default}", engine.name);
    }
    if list.engines.is_empty() {
        text.push_str("none: no runner is beside lighter or on PATH; `lighter doctor` tells more");
    }
    text
}

/// A line an engine.
fn verdicts(verdict: &Verdict) -> String {
    let mut text = String::new();
    for engine in &verdict.engines {
        let what = match (engine.runs, &engine.version) {
            (true, _) => "runs it".to_owned(),
            (false, Some(_)) => format!("can't: it {}", engine.why_not.join("; it ")),
            (false, None) => engine.why_not.join("; "),
        };
        let _ = writeln!(text, "{:10} {:10} {what}", engine.name, engine.version.as_deref().unwrap_or("-"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(name: &str) -> Installed {
        Installed {
            name: name.to_owned(),
            runner: format!("/usr/local/bin/lighter-{name}").into(),
            version: Some("1.0".to_owned()),
            runs: vec!["modules"],
            compiler: None,
            default_by: None,
            problem: None,
        }
    }

    #[test]
    fn each_engine_has_a_line() {
        let by_file = Some("the configuration /etc/lighter/config.toml".to_owned());
        let engines = vec![
            Installed { compiler: Some("c".to_owned()), default_by: Some("default".to_owned()), ..engine("a") },
            Installed { default_by: by_file, ..engine("b") },
            Installed { version: None, problem: Some("can't start: no libc.so".to_owned()), ..engine("d") },
            Installed { runs: vec!["native programs"], ..engine(engines::NATIVE) },
        ];
        let text = list(&List { engines });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "a          1.0        modules, compiled by c (default)",
                "b          1.0        modules, interpreted (default, by the configuration /etc/lighter/config.toml)",
                "d          -          can't start: no libc.so",
                "native     1.0        native programs",
            ]
        );
        assert!(list(&List { engines: Vec::new() }).contains("doctor"));
    }

    #[test]
    fn each_verdict_has_its_reason() {
        let engine = |name: &str, version: Option<&str>, why_not: &[&str]| Engine {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            runs: why_not.is_empty(),
            why_not: why_not.iter().map(|&why| why.to_owned()).collect(),
        };
        let engines = vec![
            engine("a", Some("1.0"), &[]),
            engine("b", Some("2.0"), &["lacks simd", "finds no entry"]),
            engine("c", None, &["not installed"]),
        ];
        let text = verdicts(&Verdict { engines });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "a          1.0        runs it",
                "b          2.0        can't: it lacks simd; it finds no entry",
                "c          -          not installed",
            ]
        );
    }
}
