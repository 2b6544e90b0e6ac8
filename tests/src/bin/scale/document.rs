//! The tables of `docs/scale.md`, and their place in it.

use anyhow::{Context, Result};

use crate::{
    assumptions::Assumptions,
    burst::WRITES,
    compiler::Effort,
    figures::Figures,
    plot,
    scenario::{Load, NODES, Row, WAYS},
    validation,
};

/// The size of the cluster that the plot shows.
const PLOTTED: usize = 100;

/// A cell of what has no such figure.
const UNKNOWN: &str = "–";

/// All tables, each with the name that its marks in the document have.
pub(crate) fn tables(figures: &Figures, assumptions: &Assumptions, rows: &[Row]) -> Result<Vec<(String, String)>> {
    let largest = NODES.iter().max().copied().unwrap_or_default();
    let mut tables = vec![
        ("machine", machine(figures)),
        ("node", node(figures)),
        ("compilations", compilations(figures)),
        ("validation", compared(figures)?),
        ("assumptions", assumed(assumptions)),
        ("writes", writes()),
        ("packing", packing(figures, assumptions)),
    ];
    for (name, load) in [("one", Load::OneLarge), ("many", Load::Many)] {
        let of: Vec<&Row> = rows.iter().filter(|row| row.load == load).collect();
        tables.push((name, last_ready(&of)));
        let at = |nodes| of.iter().copied().filter(move |row| row.nodes == nodes).collect::<Vec<_>>();
        tables.push((if load == Load::OneLarge { "one-largest" } else { "many-largest" }, details(&at(largest))));
    }
    Ok(tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect())
}

/// Puts tables between their marks, `<!-- scale:NAME -->` and `<!-- /scale:NAME -->`.
///
/// # Errors
/// The document lacks a mark.
pub(crate) fn fill(mut text: String, tables: &[(String, String)]) -> Result<String> {
    for (name, table) in tables {
        let marks = [format!("<!-- scale:{name} -->\n"), format!("<!-- /scale:{name} -->")];
        let [start, end] = &marks;
        let (before, rest) = text.split_once(start).with_context(|| format!("no {start:?} in the document"))?;
        let (_, after) = rest.split_once(end).with_context(|| format!("no {end:?} in the document"))?;
        text = [before, start, table, end, after].concat();
    }
    Ok(text)
}

/// The plot of the large module.
pub(crate) fn svg(rows: &[Row]) -> String {
    let rows = rows.iter().filter(|row| row.load == Load::OneLarge && row.nodes == PLOTTED);
    let lines: Vec<(String, &[f64])> = rows
        .filter(|row| !row.way.ends_with("mirror"))
        .map(|row| (row.way.replace('*', ""), row.ready.as_slice()))
        .collect();
    plot::draw(&format!("Pods ready, one large module, {PLOTTED} nodes"), &lines)
}

fn table(titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let numbers = "---:|".repeat(titles.len() - 1);
    let mut table = format!("| {} |\n|---|{numbers}\n", titles.join(" | "));
    rows.into_iter().for_each(|row| table += &format!("| {} |\n", row.join(" | ")));
    table
}

fn seconds(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn machine(figures: &Figures) -> String {
    let (machine, versions) = (&figures.machine, &figures.versions);
    format!(
        "Measured on {}: {} cores of {}, load {} before the run; containerd {}, runc {}, {}.\n",
        machine.date,
        machine.cores,
        machine.processor,
        machine.load,
        versions.containerd,
        versions.runc,
        versions.lighter
    )
}

fn node(figures: &Figures) -> String {
    let row = |what: &str, lighter: String, runc: String| vec![what.to_owned(), lighter, runc];
    let milliseconds = |seconds: f64| format!("{:.1}", seconds * 1e3);
    let (lighter, runc) = (&figures.lighter, &figures.runc);
    let memory = |contender| {
        figures.overhead(contender).map_or_else(|| UNKNOWN.to_owned(), |mebibytes| format!("{mebibytes:.1}"))
    };
    let large = |seconds: f64| format!("{seconds:.2}");
    let mut rows: Vec<_> = ["1", "2", "8"]
        .iter()
        .enumerate()
        .map(|(index, at_once)| {
            let rate = |rates: &[f64; 3]| format!("{:.1}", rates[index]);
            row(&format!("tasks a second, {at_once} at a time"), rate(&lighter.per_second), rate(&runc.per_second))
        })
        .collect();
    rows.extend([
        row("CPU time of a task, ms", milliseconds(lighter.cpu_seconds), milliseconds(runc.cpu_seconds)),
        row("PSS of an idle container with its daemon, MiB", memory("lighter"), memory("runc")),
        row("first start of the large module, s", large(figures.large.first), UNKNOWN.to_owned()),
        row("its next start, s", large(figures.large.next), UNKNOWN.to_owned()),
    ]);
    table(&["one node", "Lighter", "runc"], rows)
}

fn compilations(figures: &Figures) -> String {
    let titles = [
        "module",
        "MB",
        "baseline: CPU s",
        "on one core",
        "most MiB",
        "code MB",
        "optimised: CPU s",
        "on one core",
        "most MiB",
        "code MB",
    ];
    table(
        &titles,
        figures.compilations.iter().map(|of| {
            let cells = |effort: &Effort| {
                let memory = format!("{:.0}", effort.mebibytes);
                let [cpu, serial] = [effort.cpu_seconds, effort.serial_seconds].map(|seconds| format!("{seconds:.2}"));
                [cpu, serial, memory, megabytes(effort.code_bytes)]
            };
            let [baseline, optimised] = [&of.baseline, &of.optimised].map(cells);
            [vec![of.module.clone(), megabytes(of.bytes)], baseline.to_vec(), optimised.to_vec()].concat()
        }),
    )
}

fn compared(figures: &Figures) -> Result<String> {
    let compared = validation::compare(figures)?;
    let rows = compared.into_iter().map(|of| {
        let off = (of.simulated / of.measured - 1.0) * 100.0;
        vec![of.what.to_owned(), format!("{:.1}", of.measured), format!("{:.1}", of.simulated), format!("{off:+.0} %")]
    });
    Ok(table(&["", "measured", "simulated", "off by"], rows))
}

fn assumed(assumptions: &Assumptions) -> String {
    let listed = assumptions.listed().into_iter();
    table(&["assumption", "value"], listed.map(|(key, value)| vec![format!("`{key}`"), value]))
}

fn writes() -> String {
    table(&["who", "writes"], WRITES.iter().map(|(who, what, _)| vec![(*who).to_owned(), (*what).to_owned()]))
        .replace("---:", "---")
}

/// Pods that use all they ask for, placed by what is asked for and what the RuntimeClass declares.
fn packing(figures: &Figures, assumptions: &Assumptions) -> String {
    let Assumptions { memory_gibibytes, request_mebibytes: request, overhead_mebibytes: overhead, .. } = assumptions;
    let kinds = [("Lighter", "lighter", *overhead), ("Lighter, no overhead", "lighter", 0.0), ("runc", "runc", 0.0)];
    let rows = kinds.iter().filter_map(|(name, contender, declared)| {
        let taken = figures.overhead(contender)?;
        let pods = (memory_gibibytes * 1024.0 / (request + declared)).floor();
        let all = pods * (request + taken) / 1024.0;
        let cells = [format!("{declared:.0}"), format!("{taken:.1}"), format!("{pods:.0}"), format!("{all:.1}")];
        Some([vec![(*name).to_owned()], cells.to_vec()].concat())
    });
    let titles =
        ["RuntimeClass", "declares, MiB a pod", "measured, MiB", "pods that are placed", "what they take, GiB"];
    table(&titles, rows)
}

fn last_ready(rows: &[&Row]) -> String {
    let heads = NODES.map(|nodes| format!("{nodes} node{}", if nodes == 1 { "" } else { "s" }));
    let titles: Vec<&str> =
        ["seconds until all are ready"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    table(
        &titles,
        WAYS.iter().map(|way| {
            let cells = rows.iter().filter(|row| row.way == way.name).map(|row| seconds(row.last));
            [way.name.to_owned()].into_iter().chain(cells).collect()
        }),
    )
}

fn details(rows: &[&Row]) -> String {
    let titles = [
        "nodes, pods",
        "p50 s",
        "p99 s",
        "last s",
        "from the registry, GB",
        "compiling, CPU s",
        "all optimised after s",
        "API writes",
    ];
    let rest = rows.iter().map(|row| {
        let optional = |figure: f64, text: String| if figure > 0.0 { text } else { UNKNOWN.to_owned() };
        vec![
            row.way.to_owned(),
            seconds(row.p50),
            seconds(row.p99),
            seconds(row.last),
            optional(row.registry_bytes, format!("{:.2}", row.registry_bytes / 1e9)),
            optional(row.compile_cpu_seconds, format!("{:.0}", row.compile_cpu_seconds)),
            optional(row.optimised_after, seconds(row.optimised_after)),
            row.api_writes.to_string(),
        ]
    });
    let of = rows.first().map_or(String::new(), |row| format!("{} nodes, {} pods", row.nodes, row.pods));
    table(&[&[of.as_str()], &titles[1..]].concat(), rest)
}
