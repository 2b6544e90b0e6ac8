//! README's table of engines is this folder's, in Markdown.

use std::{collections::BTreeMap, env, fs};

use lighter_tests::{checkout, documents};

use super::{cases::TABLE, known, target::Target};

/// What stands around the table in README.
const MARKS: [&str; 2] = [
    "<!-- engines: LIGHTER_UPDATE=1 cargo test -p lighter-tests --test e2e engines::readme -->\n",
    "<!-- /engines -->\n",
];

/// A cell without a guest: the language has no tool for that version of WASI, or the case is another's.
const NO_GUEST: &str = "–";

fn markdown() -> String {
    let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut order = Vec::new();
    let mut table = format!("| | {} |\n", Target::ALL.map(Target::title).join(" | "));
    table += &format!("|---|{}\n", "---|".repeat(Target::ALL.len()));
    for row in TABLE {
        let cells = Target::ALL.map(|target| {
            if !row.targets.contains(&target.name()) {
                return NO_GUEST.to_owned();
            }
            let Some(known) = known::everywhere(row.name, target) else { return "yes".to_owned() };
            let number = *notes.entry(known.reason).or_insert_with(|| {
                order.push(known.reason);
                order.len()
            });
            format!("no[^{number}]")
        });
        table += &format!("| {} | {} |\n", row.title, cells.join(" | "));
    }
    table.push('\n');
    for (index, reason) in order.iter().enumerate() {
        table += &format!("[^{}]: {reason}\n", index + 1);
    }
    table
}

#[test]
fn has_the_table() {
    let path = checkout().join("README.md");
    let readme = fs::read_to_string(&path).expect("README");
    let expected = markdown();
    let (table, updated) = documents::replaced(&readme, MARKS, &expected).expect("README's marks");
    if env::var_os("LIGHTER_UPDATE").is_some() {
        fs::write(path, updated).expect("README");
        return;
    }
    assert!(
        table == expected,
        "README's table of engines is not that of tests/e2e/engines: the line above it says what updates it"
    );
}
