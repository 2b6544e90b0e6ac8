//! containerd's gRPC API, as far as it takes to run a task in a container that is there already.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest,
        GetContainerRequest, StartRequest, WaitRequest,
        containers_client::ContainersClient,
        snapshots::{
            PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest, snapshots_client::SnapshotsClient,
        },
        tasks_client::TasksClient,
    },
    tonic::{Request, metadata::MetadataValue, transport::Channel},
    types::Mount,
};
use lighter_tests::Bed;
use serde_json::{Value, json};

/// Annotation that names the containers of one daemon, in every shim.
const GROUP: &str = "io.containerd.runc.v2.group";

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Containerd {
    containers: ContainersClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
    tasks: TasksClient<Channel>,
}

/// A container with a snapshot, in which a task can be made.
#[derive(Clone)]
pub(crate) struct Prepared {
    id: String,
    snapshotter: String,
    rootfs: Vec<Mount>,
}

/// What each call of a task's life took, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phases {
    pub(crate) create: f64,
    pub(crate) start: f64,
    pub(crate) wait: f64,
    pub(crate) delete: f64,
}

impl Containerd {
    pub(crate) async fn connect(bed: &Bed) -> Result<Containerd> {
        let channel = bed.containerd_channel().await?;
        Ok(Containerd {
            containers: ContainersClient::new(channel.clone()),
            snapshots: SnapshotsClient::new(channel.clone()),
            tasks: TasksClient::new(channel),
        })
    }

    /// Makes a container like `template`, which `ctr` has made, with a snapshot of its own. Those with the same
    /// `group` share a daemon.
    pub(crate) async fn prepare(&self, template: &str, id: &str, group: Option<&str>) -> Result<Prepared> {
        let mut this = self.clone();
        let found = this.containers.get(in_default(GetContainerRequest { id: template.to_owned() })).await;
        let mut container = found.context("get the template")?.into_inner().container.context("no template")?;
        adapt(&mut container, id, group)?;

        let snapshotter = container.snapshotter.clone();
        let stat = StatSnapshotRequest { snapshotter: snapshotter.clone(), key: template.to_owned() };
        let stat = this.snapshots.stat(in_default(stat)).await.context("look at the template's snapshot")?;
        let parent = stat.into_inner().info.context("no snapshot of the template")?.parent;
        // Against garbage collection until the container refers to it.
        let labels = [("containerd.io/gc.root".to_owned(), "bench".to_owned())].into();
        let snapshot = PrepareSnapshotRequest { snapshotter: snapshotter.clone(), key: id.to_owned(), parent, labels };
        let snapshot = this.snapshots.prepare(in_default(snapshot)).await.context("prepare a snapshot")?;

        let create = CreateContainerRequest { container: Some(container) };
        this.containers.create(in_default(create)).await.with_context(|| format!("create container {id}"))?;
        Ok(Prepared { id: id.to_owned(), snapshotter, rootfs: snapshot.into_inner().mounts })
    }

    /// Removes a container and its snapshot.
    pub(crate) async fn remove(&self, container: Prepared) -> Result<()> {
        let Prepared { id, snapshotter, .. } = container;
        let mut this = self.clone();
        let request = DeleteContainerRequest { id: id.clone() };
        this.containers.delete(in_default(request)).await.with_context(|| format!("remove container {id}"))?;
        let request = RemoveSnapshotRequest { snapshotter, key: id };
        this.snapshots.remove(in_default(request)).await.context("remove a snapshot").map(drop)
    }

    /// Runs a task to its end, without streams. It must end with exit code 0.
    pub(crate) async fn run(&self, container: &Prepared) -> Result<Phases> {
        let id = &container.id;
        let start = Instant::now();
        self.create(container).await?;
        let created = Instant::now();
        let mut tasks = self.tasks.clone();
        let request = StartRequest { container_id: id.clone(), ..StartRequest::default() };
        tasks.start(in_default(request)).await.with_context(|| format!("start task {id}"))?;
        let started = Instant::now();
        let request = WaitRequest { container_id: id.clone(), ..WaitRequest::default() };
        tasks.wait(in_default(request)).await.with_context(|| format!("wait for task {id}"))?;
        let ended = Instant::now();
        let status = self.delete(container).await?;
        let deleted = Instant::now();
        ensure!(status == 0, "task {id} ended with exit code {status}");
        let milliseconds = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        Ok(Phases {
            create: milliseconds(start, created),
            start: milliseconds(created, started),
            wait: milliseconds(started, ended),
            delete: milliseconds(ended, deleted),
        })
    }

    /// Creates a task and leaves it there, not started.
    pub(crate) async fn create(&self, container: &Prepared) -> Result<()> {
        let Prepared { id, rootfs, .. } = container.clone();
        let request = CreateTaskRequest { container_id: id.clone(), rootfs, ..CreateTaskRequest::default() };
        self.tasks.clone().create(in_default(request)).await.with_context(|| format!("create task {id}")).map(drop)
    }

    /// Deletes a task and returns its exit code.
    pub(crate) async fn delete(&self, container: &Prepared) -> Result<u32> {
        let id = &container.id;
        let request = DeleteTaskRequest { container_id: id.clone() };
        let deleted = self.tasks.clone().delete(in_default(request)).await;
        Ok(deleted.with_context(|| format!("delete task {id}"))?.into_inner().exit_status)
    }
}

/// Gives a copy of the template what is its own.
fn adapt(container: &mut Container, id: &str, group: Option<&str>) -> Result<()> {
    id.clone_into(&mut container.id);
    id.clone_into(&mut container.snapshot_key);
    let spec = container.spec.as_mut().context("the template has no runtime spec")?;
    let mut decoded: Value = serde_json::from_slice(&spec.value).context("decode the template's runtime spec")?;
    decoded["linux"]["cgroupsPath"] = json!(format!("/default/{id}"));
    if let Some(group) = group {
        decoded["annotations"][GROUP] = json!(group);
    }
    spec.value = decoded.to_string().into_bytes();
    Ok(())
}

/// A request in the namespace that `ctr` uses.
fn in_default<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static("default"));
    request
}
