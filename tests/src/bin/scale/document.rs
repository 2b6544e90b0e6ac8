//! The tables of `docs/scale.md`, and their place in it.

use std::iter;

use anyhow::Result;
use lighter_tests::documents::replaced;

use crate::{
    assumptions::Assumptions,
    cluster::{Outcome, WRITES},
    figures::{Figures, Tasks},
    plot,
    scenario::{Load, NODES, Row, WAYS},
    validation,
};

/// The size of the cluster that the plot shows.
const PLOTTED: usize = 100;

/// A cell of what has no such figure.
const UNKNOWN: &str = "–";

/// All tables, each with the name that its marks in the document have.
pub(crate) fn tables(
    figures: &Figures,
    assumptions: &Assumptions,
    rows: &[Row],
) -> Result<Vec<(&'static str, String)>> {
    let of = |load| rows.iter().filter(move |row| row.load == load);
    let largest = NODES.iter().max().copied().unwrap_or_default();
    let at_largest = |load| of(load).filter(|row| row.nodes == largest).collect::<Vec<_>>();
    Ok(vec![
        ("machine", format!("{}\n", figures.measured)),
        ("node", node(figures)),
        ("compilations", compilations(figures)),
        ("validation", compared(figures)?),
        ("assumptions", assumed(assumptions)),
        ("writes", writes()),
        ("packing", packing(figures, assumptions)),
        ("one", last_ready(&of(Load::OneLarge).collect::<Vec<_>>())),
        ("one-largest", details(&at_largest(Load::OneLarge))),
        ("many", last_ready(&of(Load::Many).collect::<Vec<_>>())),
        ("many-largest", details(&at_largest(Load::Many))),
    ])
}

/// Puts tables between their marks, `<!-- scale:NAME -->` and `<!-- /scale:NAME -->`.
///
/// # Errors
/// The document lacks a mark.
pub(crate) fn fill(mut text: String, tables: &[(&str, String)]) -> Result<String> {
    for (name, table) in tables {
        let marks = [format!("<!-- scale:{name} -->\n"), format!("<!-- /scale:{name} -->")];
        text = replaced(&text, marks.each_ref().map(String::as_str), table)?.1;
    }
    Ok(text)
}

/// The plot of the large module.
pub(crate) fn svg(rows: &[Row]) -> String {
    let rows = rows.iter().filter(|row| row.load == Load::OneLarge && row.nodes == PLOTTED);
    let lines: Vec<(String, &[f64])> = rows
        .filter(|row| !row.way.ends_with("mirror"))
        .map(|row| (row.way.replace('*', ""), row.outcome.ready.as_slice()))
        .collect();
    plot::draw(&format!("Pods ready, one large module, {PLOTTED} nodes"), &lines)
}

/// The first column is of text, the others are of numbers.
fn table(titles: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let numbers = "---:|".repeat(titles.matches(" | ").count());
    let rows = rows.into_iter().map(|row| format!("| {} |\n", row.join(" | ")));
    iter::once(format!("| {titles} |\n|---|{numbers}\n")).chain(rows).collect()
}

fn seconds(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn node(figures: &Figures) -> String {
    let row = |what: &str, of: fn(&Tasks) -> f64| {
        vec![what.to_owned(), format!("{:.1}", of(&figures.lighter)), format!("{:.1}", of(&figures.runc))]
    };
    let alone = |what: &str, seconds: f64| vec![what.to_owned(), format!("{seconds:.2}"), UNKNOWN.to_owned()];
    table(
        "one node | Lighter | runc",
        [
            row("tasks a second, 1 at a time", |tasks| tasks.per_second[0]),
            row("tasks a second, 2 at a time", |tasks| tasks.per_second[1]),
            row("tasks a second, 8 at a time", |tasks| tasks.per_second[2]),
            row("CPU time of a task, ms", |tasks| tasks.cpu_seconds * 1e3),
            row("PSS of an idle container with its daemon, MiB", |tasks| tasks.mebibytes),
            alone("first start of the large module, s", figures.large.first),
            alone("its next start, s", figures.large.next),
        ],
    )
}

fn compilations(figures: &Figures) -> String {
    let tier = "CPU s | on one core | most MiB | code MB";
    let rows = figures.compilations.iter().map(|of| {
        let mut cells = vec![of.module.clone(), megabytes(of.bytes)];
        for effort in [&of.baseline, &of.optimised] {
            cells.extend([effort.cpu_seconds, effort.serial_seconds].map(|seconds| format!("{seconds:.2}")));
            cells.extend([format!("{:.0}", effort.mebibytes), megabytes(effort.code_bytes)]);
        }
        cells
    });
    table(&format!("module | MB | baseline: {tier} | optimised: {tier}"), rows)
}

fn compared(figures: &Figures) -> Result<String> {
    let rows = validation::compare(figures)?.into_iter().map(|(what, measured, simulated)| {
        let off = (simulated / measured - 1.0) * 100.0;
        vec![what.to_owned(), format!("{measured:.1}"), format!("{simulated:.1}"), format!("{off:+.0} %")]
    });
    Ok(table(" | measured | simulated | off by", rows))
}

fn assumed(assumptions: &Assumptions) -> String {
    let listed = assumptions.listed().into_iter();
    table("assumption | value", listed.map(|(key, value)| vec![format!("`{key}`"), value]))
}

fn writes() -> String {
    let rows = WRITES.iter().map(|(who, what, _)| vec![(*who).to_owned(), (*what).to_owned()]);
    table("who | writes", rows).replace("---:", "---")
}

/// Pods that use all they ask for, placed by what is asked for and what the RuntimeClass declares.
fn packing(figures: &Figures, assumptions: &Assumptions) -> String {
    let Assumptions { memory_gibibytes, request_mebibytes: request, overhead_mebibytes: overhead, .. } = assumptions;
    let row = |name: &str, tasks: &Tasks, declared: f64| {
        let (pods, taken) = ((memory_gibibytes * 1024.0 / (request + declared)).floor(), tasks.mebibytes);
        let all = pods * (request + taken) / 1024.0;
        let numbers = [format!("{declared:.0}"), format!("{taken:.1}"), format!("{pods:.0}"), format!("{all:.1}")];
        [vec![name.to_owned()], numbers.to_vec()].concat()
    };
    table(
        "RuntimeClass | declares, MiB a pod | measured, MiB | pods that are placed | what they take, GiB",
        [
            row("Lighter", &figures.lighter, *overhead),
            row("Lighter, no overhead", &figures.lighter, 0.0),
            row("runc", &figures.runc, 0.0),
        ],
    )
}

fn last_ready(rows: &[&Row]) -> String {
    let heads = NODES.map(|nodes| format!(" | {nodes} node{}", if nodes == 1 { "" } else { "s" }));
    let rows = WAYS.iter().map(|(way, ..)| {
        let of_way = rows.iter().filter(|row| row.way == *way);
        iter::once((*way).to_owned()).chain(of_way.map(|row| seconds(row.last))).collect()
    });
    table(&format!("seconds until all are ready{}", heads.concat()), rows)
}

fn details(rows: &[&Row]) -> String {
    let of = rows.first().map_or(String::new(), |row| format!("{} nodes, {} pods", row.nodes, row.outcome.ready.len()));
    let rest = "p50 s | p99 s | last s | from the registry, GB | compiling, CPU s | all optimised after s | API writes";
    let optional = |figure: f64, text: String| if figure > 0.0 { text } else { UNKNOWN.to_owned() };
    let rows = rows.iter().map(|row| {
        let Outcome { registry_bytes, compiling, settled, writes, .. } = row.outcome;
        vec![
            row.way.to_owned(),
            seconds(row.p50),
            seconds(row.p99),
            seconds(row.last),
            optional(registry_bytes, format!("{:.2}", registry_bytes / 1e9)),
            optional(compiling, format!("{compiling:.0}")),
            optional(settled, seconds(settled)),
            writes.to_string(),
        ]
    });
    table(&format!("{of} | {rest}"), rows)
}
