//! WebAssembly's text format.

use std::{fs, path::Path, sync::OnceLock};

use anyhow::{Context, Result};

use super::{Set, named_after, sources};

pub(super) static WAT: Set = Set {
    name: "wat",
    sources: &["wat"],
    tools: || Ok(include_bytes!("text.rs").to_vec()),
    install: || Ok(()),
    build,
    built: OnceLock::new(),
};

fn build(folder: &Path) -> Result<()> {
    for source in sources("wat", "wat")? {
        let module = wat::parse_file(&source).with_context(|| format!("assemble {}", source.display()))?;
        let path = named_after(&source, folder)?;
        fs::write(&path, module).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
