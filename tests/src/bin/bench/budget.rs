//! What was promised, and whether it holds.

use std::fmt;

use serde::Serialize;

/// A promise with the figure that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    /// What is measured, with its unit.
    what: &'static str,
    /// Of the figure, in that unit.
    bound: Bound,
    measured: f64,
    met: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Verdict {
    pub(crate) fn new(what: &'static str, bound: Bound, measured: f64) -> Verdict {
        let met = match bound {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        };
        Verdict { what, bound, measured, met }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, bound) = match self.bound {
            Bound::AtMost(most) => ('≤', most),
            Bound::AtLeast(least) => ('≥', least),
        };
        let met = if self.met { "met" } else { "**missed**" };
        write!(f, "{sign} {bound} {}: {met} ({:.2})", self.what, self.measured)
    }
}

/// In one cell of a table.
pub(crate) fn cell(verdicts: &[Verdict]) -> String {
    verdicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
