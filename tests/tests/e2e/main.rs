//! What a user sees: guests under real containerd and real Docker, on every suite.
//!
//! Each module is one concern. Most tests are rows: a guest, what it is given, and what comes of it.

mod cache;
mod case;
mod cleanup;
mod container;
mod crash;
mod docker;
mod formats;
mod isolation;
mod many;
mod run;
mod seal;
