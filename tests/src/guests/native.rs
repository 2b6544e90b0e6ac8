//! Programs for the host, by its C compiler: static, for an image that holds nothing else.

use std::{path::Path, process::Command, sync::OnceLock};

use anyhow::Result;

use super::{Set, named_after, run, sources};
use crate::prerequisites::{self, Tool};

pub(super) static NATIVE: Set = Set {
    name: "native",
    sources: &["native"],
    tools: || Ok([include_bytes!("native.rs"), run(Command::new("cc").arg("-dumpmachine"))?.as_bytes()].concat()),
    install: || prerequisites::need(&[Tool::program("cc", "gcc"), Tool::file(LIBC.as_ref(), "libc6-dev")]),
    build,
    built: OnceLock::new(),
};

/// The library's header, which is at one place on every architecture.
const LIBC: &str = "/usr/include/stdio.h";

fn build(folder: &Path) -> Result<()> {
    for source in sources("native", "c")? {
        let program = named_after(&source, folder)?.with_extension("");
        run(Command::new("cc").args(["-static", "-Os", "-s", "-Wall", "-Werror", "-o"]).arg(program).arg(source))?;
    }
    Ok(())
}
