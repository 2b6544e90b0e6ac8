//! The daemon: one a pod, serves its tasks until containerd shuts it down.

use std::{
    env, fs,
    os::{fd::AsFd, unix::net::UnixListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use containerd_shim::Flags;
use containerd_shim_protos::ttrpc::r#async::{Server, transport::Listener};
use lighter_runtime_api::resident::FilePages;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    events::{Publish, Publisher},
    logging,
    pod::{Pod, SandboxService},
    runner::Runners,
    service::TaskService,
    start::socket_path,
    tasks::Tasks,
};

/// The action under which `start` runs the daemon.
pub(crate) const ACTION: &str = "serve";
/// How long events may take to reach containerd before the daemon goes.
const FLUSH: Duration = Duration::from_secs(3);
/// When a daemon has done what its start takes.
const IDLE: Duration = Duration::from_secs(1);

/// Runs in the first container's bundle until the pod has no use for it.
pub(crate) fn run(argv0: &str, flags: &Flags) -> Result<()> {
    // Its own session: containerd's service manager must not end the pods of a containerd that it restarts.
    let _ = nix::unistd::setsid();
    // Inits are children of runners that end: they become ours.
    nix::sys::prctl::set_child_subreaper(true).context("become subreaper")?;
    // The first container is about to be created.
    lighter_launch::anticipate_move();
    logging::install(&flags.id, &flags.namespace, flags.debug).context("open log")?;
    // The bundle's folder is containerd's to remove.
    env::set_current_dir("/").context("leave bundle")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start event loop")?;
    let served = runtime.block_on(serve(argv0, flags));
    if let Err(error) = &served {
        log::error!("{error:#}");
    }
    served
}

async fn serve(argv0: &str, flags: &Flags) -> Result<()> {
    let listener = inherited_listener()?;
    let events = Publisher::start(env::var("TTRPC_ADDRESS").context("TTRPC_ADDRESS")?, flags.namespace.clone());
    let pod = Pod::new();
    let runners = Runners::new(argv0, flags, pod.clone()).context("find runners")?;
    let tasks = Tasks::new(runners, Arc::new(events.clone()) as Arc<dyn Publish>);
    let shutdown = watch::Sender::new(false);
    let mut asked = shutdown.subscribe();
    let server = SandboxService::new(pod.clone(), Arc::clone(&tasks), shutdown.clone()).register(Server::new());
    let mut server = TaskService::new(tasks, pod, shutdown).register(server).add_listener(listener);
    server.start().await.context("serve")?;
    log::debug!("serving at {}", flags.socket);

    tokio::spawn(give_back_memory());

    // A daemon that goes leaves its containers to nobody: it ends when containerd says so, not when it is asked to.
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    loop {
        tokio::select! {
            _ = asked.wait_for(|asked| *asked) => break,
            _ = terminate.recv() => log::info!("ignored SIGTERM: the pod's containers end first"),
            _ = interrupt.recv() => log::info!("ignored SIGINT: the pod's containers end first"),
        }
    }
    // First of all, so that a `start` for the same pod makes a new daemon instead of finding this one.
    let _ = fs::remove_file(socket_path(&flags.socket));
    if tokio::time::timeout(FLUSH, events.flush()).await.is_err() {
        log::warn!("containerd took no events for {FLUSH:?}; the last ones are lost");
    }
    let _ = tokio::time::timeout(FLUSH, server.shutdown()).await;
    Ok(())
}

/// Gives back what starting took, once the first container runs and there is nothing to do but wait for it. A container
/// that is over by then was not worth it.
async fn give_back_memory() {
    tokio::time::sleep(IDLE).await;
    if let Ok(maps) = fs::read_to_string("/proc/self/maps")
        && let Err(error) = FilePages::of(&maps).give_back()
    {
        log::debug!("give memory back: {error}");
    }
}

/// The listener that `start` bound, which is standard input.
fn inherited_listener() -> Result<Listener> {
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("inherit listener")?;
    Listener::try_from(UnixListener::from(listener)).context("inherit listener")
}
