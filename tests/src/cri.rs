//! CRI as the kubelet speaks it: pods, their containers, and the streams into them.
//!
//! Every bed's containerd serves it, with a CNI bridge and with these handlers: `runc`, `lighter`, and `lighter-wamr`, whose
//! options choose another engine. What a bed needs beyond that, the pause image, comes with its first [`Cri`].

mod configuration;
mod container;
mod logs;
mod pod;
mod stream;

use std::{
    collections::HashSet,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

pub use containerd_client::tonic::{Code, Status};
pub use k8s_cri::v1 as api;

use containerd_client::tonic::{Response, transport::Channel};
use k8s_cri::v1::{
    ExecSyncRequest, ExecSyncResponse, ImageSpec, ImageStatusRequest, PullImageRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use tokio::{runtime::Runtime, time::timeout};

pub(crate) use configuration::{containerd, files};
pub use container::{Container, ContainerBuilder};
pub use logs::{Line, Tag};
pub use pod::{Pod, PodBuilder};
pub use stream::{Channels, Forward};

use crate::{Bed, Image, guests, vm};

/// containerd's namespace of pods.
const NAMESPACE: &str = "k8s.io";

/// What holds a pod's namespaces, unless something else does.
pub const PAUSE: &str = "docker.io/library/pause:bed";

/// No call takes longer, whatever it waits for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// How long anything that is waited for may take to come.
const COMES_WITHIN: Duration = Duration::from_secs(30);

/// A client of one bed's CRI. Each has an event loop of its own: tests that run at once have one each.
pub struct Cri<'bed> {
    bed: &'bed Bed,
    event_loop: Runtime,
    channel: Channel,
}

impl<'bed> Cri<'bed> {
    /// Connects, and sees to it that pods can start.
    #[track_caller]
    pub fn connect(bed: &'bed Bed) -> Cri<'bed> {
        let event_loop = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let channel = event_loop.block_on(bed.containerd_channel());
        let channel = channel.unwrap_or_else(|error| panic!("no CRI on {}: {error:#}", bed.suite()));
        let cri = Cri { bed, event_loop, channel };
        cri.import(&Image::new(PAUSE).of_host().file("/pause", guests::native("pause")).entrypoint(&["/pause"]));
        cri
    }

    /// The bed it is of.
    pub fn bed(&self) -> &'bed Bed {
        self.bed
    }

    /// Calls the runtime service.
    ///
    /// # Errors
    /// What the service answers.
    #[track_caller]
    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut RuntimeServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut client = RuntimeServiceClient::new(self.channel.clone());
        self.block_on(async { call(&mut client).await.map(Response::into_inner) })
    }

    /// Calls the image service.
    ///
    /// # Errors
    /// What the service answers.
    #[track_caller]
    pub fn call_images<T>(
        &self,
        call: impl AsyncFnOnce(&mut ImageServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut client = ImageServiceClient::new(self.channel.clone());
        self.block_on(async { call(&mut client).await.map(Response::into_inner) })
    }

    /// Calls the runtime service, whatever comes of it.
    fn at_last(&self, call: impl AsyncFnOnce(&mut RuntimeServiceClient<Channel>) -> Result<(), Status>) {
        let mut client = RuntimeServiceClient::new(self.channel.clone());
        let _ = self.event_loop.block_on(async { timeout(vm::patience(ANSWERS_WITHIN), call(&mut client)).await });
    }

    #[track_caller]
    fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        let answered = self.event_loop.block_on(async { timeout(vm::patience(ANSWERS_WITHIN), call).await });
        answered.unwrap_or_else(|_| panic!("CRI of {} did not answer within {ANSWERS_WITHIN:?}", self.bed.suite()))
    }

    /// Puts an image where pods find it, unless one of its name is there already.
    #[track_caller]
    pub fn import(&self, image: &Image) {
        if self.image(image.name()).is_some() {
            return;
        }
        let import = ["--namespace", NAMESPACE, "images", "import", "--all-platforms", "-"];
        // Another may do the same at the same time, and be first.
        let imported = self.bed.ctr(&import).stdin(image.to_tar()).run();
        // It hears of the image by an event.
        let found = eventually(|| self.image(image.name()));
        assert!(found.is_some(), "CRI of {} does not find image {}\n{imported}", self.bed.suite(), image.name());
    }

    /// An image that is there.
    #[track_caller]
    pub fn image(&self, name: &str) -> Option<api::Image> {
        let request = ImageStatusRequest { image: Some(image_spec(name)), verbose: false };
        let status = self.call_images(async |images| images.image_status(request).await);
        status.unwrap_or_else(|status| panic!("status of image {name}: {status}")).image
    }

    /// Pulls an image as the kubelet does, and returns its reference, which holds its digest.
    ///
    /// # Errors
    /// What containerd answers.
    #[track_caller]
    pub fn pull(&self, name: &str) -> Result<String, Status> {
        let request = PullImageRequest { image: Some(image_spec(name)), ..PullImageRequest::default() };
        self.call_images(async |images| images.pull_image(request).await).map(|response| response.image_ref)
    }

    /// A pod to be, run by this handler. Its name must be the test's own.
    pub fn pod<'cri>(&'cri self, handler: &str, name: &str) -> PodBuilder<'cri, 'bed> {
        PodBuilder::new(self, handler, name)
    }

    /// A pod that another client of the bed has made.
    pub fn known_pod<'cri>(&'cri self, pod: &Pod<'_, '_>) -> Pod<'cri, 'bed> {
        Pod { cri: self, id: pod.id.clone(), config: pod.config.clone() }
    }

    /// Runs a program in a container to its end, or for so many seconds, 0 being for ever.
    ///
    /// # Errors
    /// What CRI answers: DeadlineExceeded where it takes longer.
    #[track_caller]
    pub fn exec_sync(&self, container: &str, command: &[&str], seconds: i64) -> Result<ExecSyncResponse, Status> {
        let cmd = command.iter().map(ToString::to_string).collect();
        let request = ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: seconds };
        self.call(async |runtime| runtime.exec_sync(request).await)
    }

    /// What is left of all pods' networks: namespaces and addresses, one line each.
    #[track_caller]
    pub fn networks(&self) -> HashSet<String> {
        let items =
            self.bed.sh("ls /run/netns /var/lib/cni/networks/* /var/lib/cni/results 2>/dev/null || true").run().ok();
        let of_pods = |line: &&str| line.starts_with("cni-") || line.starts_with("10.") || line.contains("eth0");
        items.stdout.lines().filter(of_pods).map(str::to_owned).collect()
    }

    /// A file of the bed as the host sees it.
    fn path(&self, path: &str) -> PathBuf {
        self.bed.path(path)
    }
}

/// Asks again and again until there is an answer. None where there is none in time.
fn eventually<T>(mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + vm::patience(COMES_WITHIN);
    loop {
        let answer = check();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn image_spec(name: &str) -> ImageSpec {
    ImageSpec { image: name.to_owned(), ..ImageSpec::default() }
}

/// Panics unless it failed with this code, and returns the message.
#[track_caller]
pub fn refused<T>(result: Result<T, Status>, code: Code) -> String {
    match result {
        Ok(_) => panic!("it should have failed with {code:?}"),
        Err(status) => {
            assert_eq!(status.code(), code, "{status}");
            status.message().to_owned()
        }
    }
}
