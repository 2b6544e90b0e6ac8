//! The report for people.

use std::fmt::Write;

use indicatif::HumanBytes;
use lighter_oci::Kind;

use super::{Binary, Entry, Item, Report};
use crate::output::plain;

/// Imports or exports that are listed; JSON has all.
const LISTED: usize = 200;

/// All of it, as lines.
pub(crate) fn text(report: &Report) -> String {
    let mut text = format!("{}\n", plain(&report.name));
    if let Some(image) = &report.image {
        rows(&mut text, &image.rows());
    }
    let Some(module) = &report.module else { return text };
    let _ = writeln!(text, "\n{}", module.binary.kind.noun());
    rows(&mut text, &about(&module.binary, module.entry));
    match &module.wit {
        Some(wit) => {
            text.push_str("\nworld\n");
            for line in wit.lines() {
                let _ = writeln!(text, "  {}", plain(line));
            }
        }
        None => {
            items(&mut text, "imports", &module.binary.imports);
            items(&mut text, "exports", &module.binary.exports);
        }
    }
    text.push('\n');
    let engines = module.engines.iter().map(|engine| {
        let runs = if engine.runs { "yes".to_owned() } else { format!("no: it {}", engine.why_not.join("; it ")) };
        let runs = if engine.version.is_some() { runs } else { engine.why_not.join("; ") };
        [engine.name.clone(), engine.version.clone().unwrap_or_else(|| "-".to_owned()), runs]
    });
    table(&mut text, ["ENGINE", "VERSION", "RUNS IT"], engines);
    text.push('\n');
    let grants = module.grants.iter().map(|grant| {
        let asked = if grant.imported { "yes" } else { "no" };
        [grant.what, asked, grant.container, grant.run].map(str::to_owned)
    });
    table(&mut text, ["WOULD BE GRANTED", "IMPORTS IT", "IN A CONTAINER", "BY LIGHTER RUN"], grants);
    text
}

fn about(binary: &Binary, entry: Entry) -> Vec<(String, String)> {
    let mut rows = vec![("size".to_owned(), HumanBytes(binary.size).to_string())];
    let begins = match (entry, binary.kind) {
        (Entry::Command, Kind::Module) => "_start",
        (Entry::Command, Kind::Component) => "wasi:cli/run",
        (Entry::Http, _) => "wasi:http, a server",
        (Entry::Missing(why), _) => &format!("none: it {why}"),
    };
    rows.push(("entry".to_owned(), begins.to_owned()));
    for memory in &binary.memories {
        let most = memory.maximum.map(|most| format!(", up to {}", HumanBytes(most))).unwrap_or_default();
        let shared = if memory.shared { ", shared" } else { "" };
        let wide = if memory.memory64 { ", 64 bit" } else { "" };
        rows.push(("memory".to_owned(), format!("{}{most}{shared}{wide}", HumanBytes(memory.initial))));
    }
    let features = if binary.features.is_empty() { "none".to_owned() } else { binary.features.join(", ") };
    rows.push(("needs".to_owned(), features));
    for (name, value) in &binary.metadata.texts {
        rows.push(((*name).to_owned(), value.clone()));
    }
    for (field, values) in &binary.metadata.producers {
        let values: Vec<_> =
            values.iter().map(|(name, version)| format!("{name} {version}").trim().to_owned()).collect();
        rows.push((field.clone(), values.join(", ")));
    }
    rows
}

/// Grouped by module, in the order of the groups' first items.
fn items(text: &mut String, title: &str, items: &[Item]) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    let mut groups: Vec<(Option<&str>, Vec<&Item>)> = Vec::new();
    for item in items.iter().take(LISTED) {
        let module = item.module.as_deref();
        match groups.iter_mut().find(|(name, _)| *name == module) {
            Some((_, group)) => group.push(item),
            None => groups.push((module, vec![item])),
        }
    }
    for (module, group) in groups {
        if let Some(module) = module {
            let _ = writeln!(text, "  {}", plain(module));
        }
        let indent = if module.is_some() { 4 } else { 2 };
        let width = group.iter().map(|item| plain(&item.name).chars().count()).max().unwrap_or_default();
        for item in group {
            let _ = writeln!(text, "{:indent$}{:width$}  {}", "", plain(&item.name), item.ty);
        }
    }
    if let Some(more) = items.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more (--json lists all)");
    }
}

/// Names and values; a name is not repeated.
fn rows(text: &mut String, rows: &[(String, String)]) {
    let mut last = "";
    for (name, value) in rows {
        let shown = if name == last { "" } else { name.as_str() };
        let _ = writeln!(text, "  {:13} {}", plain(shown), plain(value));
        last = name;
    }
}

fn table<const N: usize>(text: &mut String, head: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> =
        std::iter::once(head.map(str::to_owned)).chain(rows.map(|row| row.map(|cell| plain(&cell)))).collect();
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{
        super::{Engine, ModuleReport, grants},
        *,
    };

    fn report(wat: &str) -> Report {
        let binary = Binary::parse("test", &wat::parse_str(wat).unwrap()).unwrap();
        let engine = |name: &str, version: Option<&str>, why: &[&str]| Engine {
            name: name.to_owned(),
            version: version.map(str::to_owned),
            runs: why.is_empty(),
            why_not: why.iter().map(|why| (*why).to_owned()).collect(),
        };
        let module = ModuleReport {
            entry: super::super::entry(&binary),
            wit: None,
            engines: vec![
                engine("wasmtime", Some("48.0.8"), &[]),
                engine("wamr", Some("2.4"), &["lacks simd", "does not provide env.f"]),
                engine("wasmedge", None, &["not installed"]),
            ],
            grants: grants(&binary),
            binary,
        };
        Report { name: "a.wasm".to_owned(), image: None, module: Some(module) }
    }

    #[test]
    fn tells_what_people_ask() {
        let text = text(&report(
            r#"(module (import "env" "f" (func (param i32))) (import "wasi_snapshot_preview1" "args_get" (func))
                (memory 1 2) (func (export "_start")))"#,
        ));
        for line in [
            "core module",
            "  entry         _start",
            "  memory        64.00 KiB, up to 128.00 KiB",
            "  wasi_snapshot_preview1",
            "    f  func (i32)",
            "wasmtime  48.0.8   yes",
            "wamr      2.4      no: it lacks simd; it does not provide env.f",
            "wasmedge  -        not installed",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
        assert!(text.contains("arguments               yes "), "{text}");
    }

    #[test]
    fn what_strangers_wrote_does_not_reach_the_terminal_as_it_is() {
        let text = text(&report("(module (func (export \"a\\1b[2J\\u{202e}b\")))"));
        assert!(text.contains("a\\u{1b}[2J\\u{202e}b  func"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
