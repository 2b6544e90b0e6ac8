//! What each engine runs: one table of cases and engines, from which README's is generated.
//!
//! `cases.rs` is the table, a line a case. Each of its cells is a test on every suite, which passes, or fails as an entry of
//! `known.rs` says that it must. Must not know: how an engine does it.

mod cases;
mod cell;
mod dns;
mod known;
mod readme;
mod target;
