//! Publishes lifecycle events to containerd, in order, each as often as it takes.
//!
//! `containerd-shim`'s own publisher queues a failed event behind later ones and can't be waited for; Docker takes an
//! exit before a start, or none at all, for a container that never ends.

use std::time::Duration;

use containerd_shim::{
    event::Event,
    util::{connect, convert_to_any, timestamp},
};
use containerd_shim_protos::{
    api::ForwardRequest,
    protobuf::MessageDyn,
    shim::event::Envelope,
    shim_async::{Client, EventsClient},
    ttrpc::context,
};
use tokio::sync::{mpsc, oneshot};

/// How often an event is tried, and how long to wait between: containerd may be restarting.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_millis(500);
/// Nanoseconds that containerd has to take an event.
const TIMEOUT: i64 = 5_000_000_000;

enum Item {
    Event(Box<Envelope>),
    Flush(oneshot::Sender<()>),
}

/// The sending end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    namespace: String,
    queue: mpsc::UnboundedSender<Item>,
}

/// What publishes events: the queue to containerd, or a list in tests.
pub(crate) trait Publish: Send + Sync + 'static {
    fn publish(&self, topic: String, event: Box<dyn MessageDyn>);
}

impl Publisher {
    /// Starts to publish to containerd's ttrpc socket at `address`.
    pub(crate) fn start(address: String, namespace: String) -> Self {
        let (queue, items) = mpsc::unbounded_channel();
        tokio::spawn(forward(address, items));
        Self { namespace, queue }
    }

    /// Waits until everything before is published or given up.
    pub(crate) async fn flush(&self) {
        let (done, waiter) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            let _ = waiter.await;
        }
    }
}

impl Publish for Publisher {
    fn publish(&self, topic: String, event: Box<dyn MessageDyn>) {
        let envelope = timestamp().and_then(|at| {
            let mut envelope = Envelope::new();
            envelope.set_topic(topic);
            envelope.set_namespace(self.namespace.clone());
            envelope.set_timestamp(at);
            envelope.set_event(convert_to_any(event)?);
            Ok(envelope)
        });
        match envelope {
            // The queue's other end lives as long as the daemon.
            Ok(envelope) => drop(self.queue.send(Item::Event(Box::new(envelope)))),
            Err(error) => log::error!("encode event: {error}"),
        }
    }
}

/// Publishes an event under its own topic.
pub(crate) fn publish<E: Event + MessageDyn>(to: &dyn Publish, event: E) {
    to.publish(event.topic(), Box::new(event));
}

async fn forward(address: String, mut items: mpsc::UnboundedReceiver<Item>) {
    let mut client = None;
    while let Some(item) = items.recv().await {
        match item {
            Item::Flush(done) => drop(done.send(())),
            Item::Event(envelope) => {
                let mut request = ForwardRequest::new();
                request.set_envelope(*envelope);
                deliver(&address, &mut client, &request).await;
            }
        }
    }
}

async fn deliver(address: &str, client: &mut Option<EventsClient>, request: &ForwardRequest) {
    for attempt in 1..=TRIES {
        if client.is_none() {
            *client = open(address);
        }
        if let Some(events) = client {
            match events.forward(context::with_timeout(TIMEOUT), request).await {
                Ok(_) => return,
                Err(error) => log::warn!("publish {} (try {attempt}): {error}", request.envelope().topic()),
            }
            *client = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    log::error!("gave up publishing {}", request.envelope().topic());
}

#[allow(unsafe_code)]
fn open(address: &str) -> Option<EventsClient> {
    let fd = connect(address).map_err(|error| log::warn!("connect to containerd at {address}: {error}")).ok()?;
    // SAFETY: `connect` made the socket and gave its ownership away; nobody else knows it.
    Some(EventsClient::new(unsafe { Client::from_raw_unix_socket_fd(fd) }))
}
