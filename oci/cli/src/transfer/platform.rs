//! Which of an index's images.

use anyhow::{Result, bail};
use lighter_oci::image::{self, Content, media, platform_name, platform_rank};
use oci_spec::image::{Descriptor, Platform};

/// What a user wants of an index.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Platforms {
    /// The one that Lighter would run here.
    #[default]
    Best,
    /// The one of this name, such as `wasi/wasm`.
    Named(String),
    /// Every one.
    All,
}

impl Platforms {
    pub(crate) fn new(named: Option<String>, all: bool) -> Self {
        match named {
            _ if all => Self::All,
            Some(name) => Self::Named(name),
            None => Self::Best,
        }
    }

    /// The manifests to take of those behind `root`. A root that is a manifest is taken whatever it is for.
    pub(super) async fn choose<C>(&self, content: &C, root: &Descriptor) -> Result<Vec<Descriptor>>
    where
        C: Content<Error = anyhow::Error>,
    {
        if !media::is_index(root.media_type()) {
            return Ok(vec![root.clone()]);
        }
        let manifests = image::manifests(content, root).await?;
        let chosen = match self {
            Self::All => return Ok(manifests.into_iter().map(|(manifest, _)| manifest).collect()),
            Self::Best => manifests
                .iter()
                .filter_map(|(manifest, platform)| Some((platform_rank(platform.as_ref())?, manifest)))
                .min_by_key(|(rank, _)| *rank)
                .map(|(_, manifest)| manifest.clone()),
            Self::Named(name) => manifests
                .iter()
                .find(|(_, platform)| platform.as_ref().is_some_and(|platform| is_named(platform, name)))
                .map(|(manifest, _)| manifest.clone()),
        };
        if let Some(chosen) = chosen {
            return Ok(vec![chosen]);
        }
        let there: Vec<String> = manifests
            .iter()
            .map(|(_, platform)| platform.as_ref().map_or("unknown".to_owned(), platform_name))
            .collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        match self {
            Self::Named(name) => bail!("the image is not there for {name}; it is for {there}"),
            _ => bail!(
                "the image is for {there}, none of which Lighter runs here; choose one with --platform, or all with --all-platforms"
            ),
        }
    }
}

/// `os/architecture`, or with the variant after it.
fn is_named(platform: &Platform, name: &str) -> bool {
    let short = platform_name(platform);
    let variant = platform.variant().as_ref();
    name == short || variant.is_some_and(|variant| name == format!("{short}/{variant}"))
}
