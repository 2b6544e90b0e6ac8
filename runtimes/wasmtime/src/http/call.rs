//! One call of a handler: the request in, the response out, for WASI 0.2 and 0.3.

use std::{future::poll_fn, pin::Pin};

use http::Request;
use lighter_runtime_api::Error;
use tokio::sync::oneshot;
use wasmtime::{Store, component::InstancePre};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView,
    p2::{self, bindings::http::types::Scheme},
    p3,
};

use super::body::Upload;
use crate::{
    backend::{NAME, one_line},
    state::State,
};

/// Where a response goes, or the guest's reason why there is none.
pub(super) type Reply = oneshot::Sender<Result<http::Response<WasiBody>, String>>;

/// Ends when the request's body is done with.
type Uploaded = Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>>;

/// A handler's component, linked.
pub(super) enum Entry {
    Sync(p2::bindings::ProxyPre<State>),
    Async(p3::bindings::ServicePre<State>),
}

/// An instance's function that answers.
pub(super) enum Proxy {
    Sync(p2::bindings::Proxy),
    Async(p3::bindings::Service),
}

impl Entry {
    pub(super) fn new(linked: wasmtime::Result<InstancePre<State>>) -> Result<Self, Error> {
        let pre = linked.map_err(|error| Error::Link(one_line(&error)))?;
        // The older one where there are both, as for commands: it is no longer an experiment.
        if let Ok(pre) = p2::bindings::ProxyPre::new(pre.clone()) {
            return Ok(Self::Sync(pre));
        }
        p3::bindings::ServicePre::new(pre).map(Self::Async).map_err(|error| Error::Unsupported {
            engine: NAME,
            what: "component",
            why: format!("its handler is of a version of wasi:http that is neither 0.2 nor 0.3: {}", one_line(&error)),
        })
    }

    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Proxy> {
        match self {
            Self::Sync(pre) => pre.instantiate_async(store).await.map(Proxy::Sync),
            Self::Async(pre) => pre.instantiate_async(store).await.map(Proxy::Async),
        }
    }
}

impl Proxy {
    /// Has the guest answer, and returns when it has nothing left to do. The response goes its way long before that, if
    /// the guest wants it so.
    ///
    /// # Errors
    /// A trap, or an exit.
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        request: Request<Upload>,
        reply: Reply,
    ) -> wasmtime::Result<()> {
        match self {
            Self::Sync(proxy) => {
                let mut http = store.data_mut().http();
                let request = http.new_incoming_request(Scheme::Http, request)?;
                let out = http.new_response_outparam_from_callback(move |answer| {
                    // Nobody waits for it where the client has gone.
                    let _ = reply.send(answer.map_err(|code| format!("{code:?}")));
                })?;
                proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
            }
            Self::Async(service) => {
                let work = async |accessor: &wasmtime::component::Accessor<State>| {
                    let (request, uploaded) = accessor.with(|mut store| {
                        let (request, uploaded) = p3::Request::from_http(store.data_mut().http().hooks, request);
                        // By its type it might borrow the store.
                        (request, Box::pin(uploaded) as Uploaded)
                    });
                    let answer = match service.handle(accessor, request).await? {
                        Ok(response) => Ok(accessor.with(|mut store| response.into_http(&mut store, uploaded))?),
                        Err(code) => Err(format!("{code:?}")),
                    };
                    let _ = reply.send(answer);
                    // The instance streams the body, and may have more to do.
                    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    Ok(())
                };
                store.run_concurrent(work).await?
            }
        }
    }
}
