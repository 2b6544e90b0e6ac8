//! containerd's side: whose image a container's is, what the image's root is, and its blobs.
//! Source: containerd's `api/services/{containers,images,content}/v1`.

use std::{io::Write, path::Path, time::Duration};

use anyhow::{Context, Error, Result, anyhow};
use containerd_client::{
    connect,
    services::v1::{
        GetContainerRequest, GetImageRequest, ReadContentRequest, containers_client::ContainersClient,
        content_client::ContentClient, images_client::ImagesClient,
    },
    tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel},
};
use lighter_oci::{
    ContainerImage,
    image::{Content, MAX_DOCUMENT},
};
use oci_spec::image::{Descriptor, Digest, MediaType};

/// A containerd that doesn't answer by then will not.
const PATIENCE: Duration = Duration::from_secs(10);
/// The metadata field that names containerd's namespace.
const NAMESPACE: &str = "containerd-namespace";

/// A connection, in one of containerd's namespaces.
pub(crate) struct Containerd {
    channel: Channel,
    namespace: MetadataValue<containerd_client::tonic::metadata::Ascii>,
}

impl Containerd {
    pub(crate) async fn connect(image: &ContainerImage) -> Result<Self> {
        let at = || format!("connect to containerd at {}", image.address.display());
        let path: &Path = image.address.strip_prefix("unix://").unwrap_or(&image.address);
        let channel = tokio::time::timeout(PATIENCE, connect(path)).await.with_context(at)?.with_context(at)?;
        let namespace = image.namespace.parse().with_context(|| format!("namespace {:?}", image.namespace))?;
        Ok(Self { channel, namespace })
    }

    /// The name of a container's image; `None` where it was made without.
    pub(crate) async fn image_of(&self, container: &str) -> Result<Option<String>> {
        let request = self.request(GetContainerRequest { id: container.to_owned() });
        let answer =
            ContainersClient::new(self.channel.clone()).get(request).await.map_err(told("look up container"))?;
        let container = answer.into_inner().container.context("containerd names no container")?;
        Ok(Some(container.image).filter(|image| !image.is_empty()))
    }

    /// What an image's name stands for now.
    pub(crate) async fn target(&self, name: &str) -> Result<Descriptor> {
        let request = self.request(GetImageRequest { name: name.to_owned() });
        let answer =
            ImagesClient::new(self.channel.clone()).get(request).await.map_err(|status| match status.code() {
                Code::NotFound => anyhow!("it is not in containerd any more; pull it again"),
                _ => told("look up image")(status),
            })?;
        let target = answer.into_inner().image.and_then(|image| image.target).context("it leads to nothing")?;
        let digest: Digest = target.digest.parse().with_context(|| format!("digest {:?}", target.digest))?;
        let size = u64::try_from(target.size).with_context(|| format!("size of {digest}"))?;
        Ok(Descriptor::new(MediaType::from(target.media_type.as_str()), size, digest))
    }

    /// Writes a blob's bytes to `sink` as they come.
    pub(crate) async fn stream(&self, blob: &Descriptor, sink: &mut impl Write) -> Result<()> {
        let reading = || format!("read layer {}", blob.digest());
        let request =
            self.request(ReadContentRequest { digest: blob.digest().to_string(), ..ReadContentRequest::default() });
        let mut client = ContentClient::new(self.channel.clone());
        let mut stream = match client.read(request).await {
            Err(status) if status.code() == Code::NotFound => return Err(missing("layer", blob)),
            answer => answer.map_err(told("read content")).with_context(reading)?.into_inner(),
        };
        let mut rest = blob.size();
        loop {
            let next = tokio::time::timeout(PATIENCE, stream.message()).await.context("containerd stopped sending");
            match next.with_context(reading)? {
                // Some releases answer the call and then say that there is no such blob.
                Err(status) if status.code() == Code::NotFound => return Err(missing("layer", blob)),
                Err(status) => return Err(told("read content")(status)).with_context(reading),
                Ok(None) => return Ok(()),
                Ok(Some(part)) => {
                    // More than was promised is told by one byte too many: the digest is not even looked at.
                    let taken = part.data.len().min(usize::try_from(rest).unwrap_or(usize::MAX).saturating_add(1));
                    sink.write_all(&part.data[..taken]).with_context(|| format!("write layer {}", blob.digest()))?;
                    rest = rest.saturating_sub(taken as u64);
                    if taken < part.data.len() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE, self.namespace.clone());
        request.set_timeout(Duration::from_secs(600));
        request
    }
}

impl Content for Containerd {
    type Error = Error;

    async fn read(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>> {
        debug_assert!(blob.size() <= MAX_DOCUMENT);
        let mut bytes = Vec::new();
        match self.stream(blob, &mut bytes).await {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.downcast_ref::<lighter_oci::Error>().is_some_and(is_missing) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn missing(what: &'static str, blob: &Descriptor) -> Error {
    lighter_oci::Error::MissingBlob { what, digest: blob.digest().to_string() }.into()
}

fn is_missing(error: &lighter_oci::Error) -> bool {
    matches!(error, lighter_oci::Error::MissingBlob { .. })
}

/// What containerd says, without the wrapping that tonic's own form has.
fn told(operation: &'static str) -> impl Fn(Status) -> Error {
    move |status| anyhow!("{operation}: {}", status.message())
}
