//! Runs a guest without a daemon: the same runner, seal and cache as the shim's, with this process in the daemon's place.
//!
//! Owns: what a command line grants, the private folder of a run, layers unpacked into it, the guest's user, signals and
//! time. Must not know: how a sandbox is built, engines.

mod compile;
mod folder;
mod handler;
mod layers;
mod program;
mod removal;
mod sandbox;
mod signals;
mod supervise;
mod user;
mod volume;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};
use lighter_launch::end_strangers;
use lighter_oci::{ANNOTATION_PREFIX, Module, Network, Source};

pub(crate) use self::{
    compile::compile,
    program::Target,
    sandbox::{cache_folder, port},
    supervise::End,
    user::User,
    volume::Volume,
};
use self::{folder::RunFolder, layers::RootFolder, program::Program, sandbox::Sandbox, signals::Signals};
use crate::{engines, output::Output};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) args: Vec<String>,
    /// `NAME=VALUE`, over the image's.
    pub(crate) env: Vec<String>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) workdir: Option<PathBuf>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) user: Option<User>,
    pub(crate) host_network: bool,
    pub(crate) ports: Vec<SocketAddr>,
    pub(crate) read_only: bool,
    /// What `--engine` names.
    pub(crate) engine: Option<String>,
    /// Lighter's annotations, as a container has them.
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) memory: Option<u64>,
    pub(crate) timeout: Option<Duration>,
}

/// Runs it to its end. Nothing of it is left then, whichever way it ended.
pub(crate) async fn run(request: Request, output: &Output) -> Result<End> {
    let annotation = request.annotations.get(&format!("{ANNOTATION_PREFIX}engine"));
    let choice = engines::choose(request.engine.as_deref(), annotation.map(String::as_str))?;
    let runner = engines::chosen(&choice.engine)?;
    let mut signals = Signals::new()?;
    let folder = RunFolder::new()?;
    let ended = run_in(&folder, &request, &runner, &mut signals, output).await;
    // A runner that was killed half-way leaves what it had forked.
    end_strangers();
    if let Err(error) = folder.remove() {
        output.note(&format!("lighter: clean up after the run: {error:#}"));
    }
    ended
}

async fn run_in(
    folder: &RunFolder,
    request: &Request,
    runner: &Path,
    signals: &mut Signals,
    output: &Output,
) -> Result<End> {
    let (program, sandbox) = match signals.unless(prepare(folder, request, output)).await {
        Ok(prepared) => prepared?,
        Err(signal) => return Ok(End::Interrupted(signal)),
    };
    let serves = sandbox.serves.is_some();
    let plan = sandbox.plan(folder, program.module.clone())?;
    // A long run keeps nobody from collecting garbage: the guest's code is mapped by now.
    let created = || drop(program);
    let started = || {
        if serves && io::stderr().is_terminal() {
            output.note(&format!("serving on http://{}", plan.guest.http.address));
        }
    };
    supervise::supervise(runner, &plan, request.timeout, signals, created, started).await
}

/// Gets the image, and lays out the root filesystem.
async fn prepare(folder: &RunFolder, request: &Request, output: &Output) -> Result<(Program, Sandbox)> {
    let privileged = user::is_privileged()?;
    if request.user.is_some() && !privileged {
        bail!("--user takes root; without it, the guest is you");
    }
    // First, for what is wrong with them is found without the network.
    let volumes: Vec<_> = request.volumes.iter().map(|volume| volume.mount(privileged)).collect::<Result<_>>()?;
    let mut program = Program::open(&request.target, output).await?;
    let args = program.command(request.entrypoint.as_deref(), &request.args)?;
    let has_files = !program.layers.is_empty();
    let mut rootfs = RootFolder::new(&folder.rootfs())?;
    rootfs.add_all(&mut program.layers).await?;
    let user = match privileged {
        true => Some(user::guest(request.user, &program.process.user, Volume::owner_of(&request.volumes)?, &rootfs)?),
        false => None,
    };
    if let Some(user) = user {
        rootfs.give(user)?;
    }
    let cwd = request.workdir.clone().unwrap_or_else(|| program.process.workdir.clone().into());
    let env = program.process.env.iter().chain(&request.env).cloned();
    let cwd = if cwd.as_os_str().is_empty() { "/".into() } else { cwd };
    let env: Vec<String> = env.collect();
    let module = match &program.module {
        Source::File { path, .. } => File::open(path).ok(),
        // What is wrong with it is the runner's to tell.
        Source::Rootfs | Source::Image(_) => {
            let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
            args.first()
                .and_then(|entrypoint| Module::find(&folder.rootfs(), entrypoint, &cwd, path).ok())
                .map(|m| m.file)
        }
    };
    let serves = module
        .is_some_and(handler::is_handler)
        .then(|| request.ports.first().copied().unwrap_or(handler::DEFAULT_ADDRESS));
    let network = match (request.host_network, &request.ports[..]) {
        (true, _) => Network::All,
        (false, []) => Network::None,
        (false, ports) => Network::Listen(ports.to_vec()),
    };
    let sandbox = Sandbox {
        args,
        env,
        cwd,
        volumes,
        // Where the image brought no files, there is nothing to change, and a disk to fill.
        read_only: request.read_only || !has_files,
        network,
        serves,
        annotations: request.annotations.clone(),
        memory: request.memory,
        user,
    };
    Ok((program, sandbox))
}
