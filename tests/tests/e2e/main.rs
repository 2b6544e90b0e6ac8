//! What a user sees: guests under real containerd and real Docker, on every suite.
//!
//! Each module is one concern. Most tests are rows: a guest, what it is given, and what comes of it.

mod big;
mod cache;
mod case;
mod cleanup;
mod cli;
mod container;
mod crash;
mod docker;
mod faults;
mod formats;
mod interchange;
mod isolation;
mod layers;
mod many;
mod registry;
mod run;
mod seal;
mod tiers;
