//! What a machine is to do, told by a file of its root.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the job is, in the machine.
pub(super) const PATH: &str = "/etc/lighter-vm.json";
/// The ports by which a machine speaks: what the steps print, and at the end one line with the exit code of all.
pub(super) const OUTPUT: &str = "output";
pub(super) const STATUS: &str = "status";

/// Commands, one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// Run in this order, also after one has failed.
    pub steps: Vec<Step>,
    /// Folders that are seen in the machine at their own paths, read-only.
    pub shares: Vec<PathBuf>,
    /// Variables of every step.
    pub environment: Vec<(String, String)>,
}

/// A command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// For people.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its own variables.
    pub environment: Vec<(String, String)>,
}
