//! `lighter-fetch`: brings the module of a container whose image holds it as a layer from containerd into the cache.
//!
//! A process of its own, because it needs a gRPC client, which neither the daemon nor a runner should carry, and because
//! only containers of such images need it. One JSON document in, one out: see `lighter_runtime_api::fetch`.
//! Must not know: engines, what a plan is.

mod content;

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::{Context, Result};
use lighter_oci::{
    Layer, Modules,
    image::{self, Format},
};
use lighter_runtime_api::{
    COMMIT,
    fetch::{Answer, Request},
};

use crate::content::Containerd;

const HELP: &str = "\
Brings a container's module from containerd's content store into Lighter's cache. The runner starts it, with a request as
JSON on standard input, for containers whose root filesystem has no WebAssembly at the entrypoint.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] if !io::stdin().is_terminal() => match answer() {
            Ok(json) => {
                println!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{}", format!("{error:#}").replace('\n', " "));
                ExitCode::FAILURE
            }
        },
        ["--version" | "-V"] => {
            println!("lighter-fetch {} ({COMMIT})", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--help" | "-h"] => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{HELP}");
            ExitCode::from(2)
        }
    }
}

fn answer() -> Result<String> {
    let request: Request = serde_json::from_reader(io::stdin().lock()).context("read request")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start event loop")?;
    let answer = runtime.block_on(fetch(&request))?;
    serde_json::to_string(&answer).context("encode answer")
}

async fn fetch(request: &Request) -> Result<Answer> {
    let containerd = Containerd::connect(&request.image).await?;
    let id = &request.image.container;
    let Some(name) = containerd.image_of(id).await? else {
        let why = format!(
            "containerd knows of no image for container {id} that could hold it as a layer of its own (`ctr run --rootfs` \
             and Docker before 27 name none)"
        );
        return Ok(Answer::None { why: Some(why) });
    };
    let named = || format!("image {name}");
    let root = containerd.target(&name).await.with_context(named)?;
    let modules = Modules::open(&request.cache, request.cache_bytes)?;

    // What a digest leads to never changes: with the module here, nothing is read of the image.
    let digest = image::sha256_of(root.digest()).with_context(named)?;
    let known = modules.known(digest);
    if let Some(layer) = &known
        && modules.get(layer)?.is_some()
    {
        return Ok(Answer::Module(layer.clone()));
    }
    let image = image::resolve(&containerd, &root).await.with_context(named)?;
    let Some(blob) = image.module.filter(|_| image.format != Format::Rootfs) else {
        return Ok(Answer::None { why: None });
    };
    let layer = Layer { digest: image::sha256_of(blob.digest()).with_context(named)?.to_owned(), size: blob.size() };
    // Another image may have brought it.
    if modules.get(&layer)?.is_none()
        && let Some(mut module) = modules.fetch(&layer)?
    {
        containerd.stream(&blob, &mut module).await.with_context(named)?;
        module.finish().with_context(named)?;
    }
    if known.as_ref() != Some(&layer) {
        modules.note(digest, &layer)?;
    }
    Ok(Answer::Module(layer))
}
