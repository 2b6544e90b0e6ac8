//! What a user sees: guests under real containerd and real Docker, on every suite.
//!
//! Each module is one concern. Most tests are rows: a guest, what it is given, and what comes of it.

mod big;
mod cache;
mod case;
mod choice;
mod cleanup;
mod cli;
mod container;
mod crash;
mod docker;
mod engines;
mod exec;
mod faults;
mod formats;
mod hooks;
mod http;
mod interchange;
mod isolation;
mod layers;
mod loggers;
mod many;
mod native;
mod overwrite;
mod registry;
mod run;
mod seal;
mod task;
mod tiers;
