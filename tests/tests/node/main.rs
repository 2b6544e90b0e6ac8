//! `lighter-node` on real containerds: it comes, is upgraded under running pods, fails without harm, and goes without a
//! trace.
//!
//! Each test has a node of its own, which it may break.

mod bench;
mod failure;
mod full;
mod image;
mod life;
mod manifests;
