//! The cells that fail, each with its reason. The list must shrink: an entry that works fails the test.

use lighter_tests::Suite;

use super::target::Target;

/// Cells that fail for one reason.
pub(super) struct Known {
    /// Names of `cases.rs`; empty for all.
    cases: &'static [&'static str],
    targets: &'static [Target],
    suites: &'static [Suite],
    /// A part of what a user sees, so that a failure of another kind is told from this one.
    pub(super) says: &'static str,
    /// For README's footnote.
    pub(super) reason: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        cases: &["tcp", "names"],
        targets: &[Target::P1],
        suites: &Suite::ALL,
        says: "error: Unsupported: operation not supported on this platform",
        reason: "WASI 0.1 has no sockets, and Wasmtime adds none to it: build for WASI 0.2",
    },
    Known {
        cases: &["threads"],
        targets: &[Target::P1],
        suites: &Suite::ALL,
        says: "link module: ",
        reason: "Wasmtime has no wasi-threads any more",
    },
    Known {
        cases: &["gc"],
        targets: &[Target::Wamr],
        suites: &Suite::ALL,
        says: "wamr can't run this module: invalid type flag",
        reason: "left out of WAMR as it is built here",
    },
    Known {
        cases: &["exceptions"],
        targets: &[Target::Wamr],
        suites: &Suite::ALL,
        says: "wamr can't run this module: invalid section id",
        reason: "WAMR has the proposal's first form only, and not in its fast interpreter",
    },
    Known {
        cases: &["threads"],
        targets: &[Target::Wasmedge],
        suites: &[Suite::Forky],
        says: "invalid module: loading failed: integer too large",
        reason: "WasmEdge has no wasi-threads",
    },
    Known {
        cases: &["gc"],
        targets: &[Target::Wasmedge],
        suites: &[Suite::Forky],
        says: "requires enabling Garbage Collection proposal",
        reason: "left out of WasmEdge as it is built here",
    },
    Known {
        cases: &["exceptions"],
        targets: &[Target::Wasmedge],
        suites: &[Suite::Forky],
        says: "requires enabling Exception Handling proposal",
        reason: "left out of WasmEdge as it is built here",
    },
    Known {
        cases: &["zig"],
        targets: &[Target::Wasmedge],
        suites: &[Suite::Forky],
        says: "error: WriteFailed",
        reason: "Zig's standard library takes an answer of WasmEdge's to its first write for a failure (`WriteFailed`)",
    },
    Known {
        cases: &["endless_recursion"],
        targets: &[Target::Wasmedge],
        suites: &[Suite::Forky],
        says: "--- exit code 139",
        reason: "WasmEdge's compiled code does not check its stack: the container ends by SIGSEGV, with 139 and no word",
    },
    Known {
        cases: &[],
        targets: &[Target::Wasmedge],
        suites: &[Suite::Trixie],
        says: "libwasmedge",
        reason: "on a node without WasmEdge's library, each container is refused with a sentence that says so",
    },
];

/// Why this cell fails, if it does.
pub(super) fn of(case: &str, target: Target, suite: Suite) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.concerns(case, target) && known.suites.contains(&suite))
}

/// Why this case fails on every suite, if it does.
pub(super) fn everywhere(case: &str, target: Target) -> Option<&'static Known> {
    KNOWN.iter().find(|known| !known.cases.is_empty() && known.concerns(case, target))
}

impl Known {
    fn concerns(&self, case: &str, target: Target) -> bool {
        self.targets.contains(&target) && (self.cases.is_empty() || self.cases.contains(&case))
    }

    /// Of no row of the table: a mistake.
    fn is_stale(&self, rows: &[super::cases::Row]) -> bool {
        let exists = |case: &str| rows.iter().any(|row| row.name == case);
        !self.cases.iter().all(|case| exists(case))
    }
}

#[test]
fn names_rows_that_exist() {
    let stale: Vec<_> = KNOWN.iter().filter(|known| known.is_stale(super::cases::TABLE)).collect();
    let stale: Vec<_> = stale.iter().map(|known| known.cases).collect();
    assert!(stale.is_empty(), "no such cases: {stale:?}");
}
