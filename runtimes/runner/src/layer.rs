//! Finds the module: in the root filesystem, in a file of the host's, or as a layer of the container's image.

use std::{
    env,
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use lighter_oci::{ContainerImage, Module, Modules, Plan, Source};
use lighter_runtime_api::fetch::{Answer, PROGRAM, Request};

use crate::Error;

/// The module of a plan.
pub(crate) fn find(plan: &Plan) -> Result<Module, Error> {
    let in_rootfs = || Module::find(&plan.rootfs, &plan.entrypoint, &plan.guest.cwd, plan.path_env());
    match &plan.module {
        Source::Rootfs => Ok(in_rootfs()?),
        Source::File { path, digest } => {
            let file = File::open(path).map_err(|source| Error::ReadModule { path: path.clone(), source })?;
            Ok(Module::of_file(file, &plan.entrypoint, digest.clone())?)
        }
        Source::Image(image) => match in_rootfs() {
            // It may be a layer of its own. Looking there costs a process, so it is done only now.
            Err(reason) if reason.is_about_entrypoint() => of_layer(plan, image, reason),
            found => Ok(found?),
        },
    }
}

/// The image's layer that is a module. `reason` says why the root filesystem has none, which is what is wrong with an
/// image that has no such layer.
fn of_layer(plan: &Plan, image: &ContainerImage, reason: lighter_oci::Error) -> Result<Module, Error> {
    let request = Request { image: image.clone(), cache: plan.cache.clone(), cache_bytes: plan.cache_bytes };
    match fetch(&plan.id, &request)? {
        Answer::Module(layer) => {
            let modules = Modules::open(&plan.cache, plan.cache_bytes)?;
            let file = modules.get(&layer)?.ok_or_else(|| Error::Fetch {
                container: plan.id.clone(),
                why: "its module was removed from the cache in the same moment; start the container again".to_owned(),
            })?;
            Ok(Module::of_file(file, &plan.entrypoint, Some(layer.digest))?)
        }
        Answer::None { why: None } => Err(reason.into()),
        Answer::None { why: Some(why) } => Err(Error::NoModule { reason, why }),
    }
}

/// Runs the fetcher.
fn fetch(container: &str, request: &Request) -> Result<Answer, Error> {
    let path = env::current_exe().unwrap_or_default().with_file_name(PROGRAM);
    let failed = |source| Error::RunProgram { path: path.clone(), source };
    let json = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    let mut child = Command::new(&path)
        .env_clear()
        .current_dir(Path::new("/"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&json).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let why =
            said.lines().last().map_or_else(|| format!("the fetcher ended with {}", output.status), str::to_owned);
        return Err(Error::Fetch { container: container.to_owned(), why });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.into()))
}
