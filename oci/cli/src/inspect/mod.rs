//! Looks into images and binaries.
//!
//! Owns: what a module or a component says of itself, what it needs of an engine, which engines have that, what it would be
//! granted. Must not know: how an engine works; the runners tell what they provide.

mod binary;
mod engines;
mod entry;
mod features;
mod grants;
mod metadata;
mod subject;
mod text;
mod wit;

use anyhow::Result;
use lighter_oci::Kind;
use serde::Serialize;

pub(crate) use binary::{Binary, Item, MAX_BYTES, read};
pub(crate) use entry::{Entry, entry};
pub(crate) use metadata::Metadata;
pub(crate) use subject::Subject;
pub(crate) use text::text;

pub(crate) use engines::{Engine, judge_installed};

use grants::{Grant, grants};
use subject::ImageReport;

/// All that is known of a subject.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// A file's or an image's.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageReport>,
    /// None where the module can't be had or isn't one.
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<ModuleReport>,
}

/// A module or component, and what would become of it.
#[derive(Debug, Serialize)]
struct ModuleReport {
    #[serde(flatten)]
    binary: Binary,
    entry: Entry,
    /// A component's world and, if it was asked for, the packages of its interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    wit: Option<String>,
    engines: Vec<Engine>,
    grants: Vec<Grant>,
}

/// Looks into a subject. A broken module is no reason to keep silent about its image: it comes beside the report.
///
/// `packages`: with the WIT of all interfaces, not the world alone.
pub(crate) async fn report(subject: Subject, packages: bool) -> (Report, Result<()>) {
    let Subject { name, image, module } = subject;
    let (module, broken) = match module {
        Ok(bytes) => match look(&name, &bytes, packages).await {
            Ok(module) => (Some(module), Ok(())),
            Err(error) => (None, Err(error)),
        },
        Err(error) => (None, Err(error.context(name.clone()))),
    };
    (Report { name, image, module }, broken)
}

async fn look(name: &str, bytes: &[u8], packages: bool) -> Result<ModuleReport> {
    let binary = Binary::parse(name, bytes)?;
    let wit = match binary.kind {
        Kind::Module => None,
        // Valid components exist whose interfaces have no text; their imports and exports are listed by name instead.
        Kind::Component => {
            wit::wit(bytes).ok().map(|wit| if packages { wit.world + "\n" + &wit.packages } else { wit.world })
        }
    };
    let engines = judge_installed(&binary).await;
    Ok(ModuleReport { entry: entry(&binary), wit, engines, grants: grants(&binary), binary })
}
