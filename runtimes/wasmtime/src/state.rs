//! What a component's instances get of the host: what all of a container share, and what each has for itself.

use std::{mem, sync::Arc};

use lighter_runtime_api::{Error, Guest, MemoryBound};
use wasmtime::{
    Engine, Store,
    component::{Component, Linker},
};
use wasmtime_wasi::{
    ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, filesystem::WasiFilesystemCtx,
    sockets::WasiSocketsCtx,
};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_tls::{WasiTlsCtx, WasiTlsCtxView, WasiTlsView};

use crate::{
    imports::Imports,
    keyvalue::KeyValue,
    limits::{Budget, Limits},
    outbound::Outbound,
    tls::{NodeRoots, Tls},
    wasi,
};

/// Handles and resources that one instance may hold at once; a server with ten thousand connections needs some four each.
const RESOURCES: usize = 100_000;
/// Bytes that a guest may hand to the host in one call.
const CALL_BYTES: usize = 32 << 20;

/// What is found out before the fork.
pub(crate) struct Prepared {
    imports: Imports,
    roots: NodeRoots,
}

/// What all instances of one container share: made once, in the sealed init.
pub(crate) struct World {
    imports: Imports,
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    /// Bytes of linear memory that one instance may have, and at most.
    memory: MemoryBound,
    most: Option<u64>,
    /// What instances have together, where there are many.
    budget: Option<Arc<Budget>>,
    handler: bool,
    filesystem: WasiFilesystemCtx,
    sockets: WasiSocketsCtx,
    shared: Arc<Shared>,
    outbound: Outbound,
}

/// What instances refer to while they run.
struct Shared {
    config: WasiConfigVariables,
    keyvalue: KeyValue,
}

/// One instance's host state.
pub(crate) struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) http: WasiHttpCtx,
    pub(crate) outbound: Outbound,
    pub(crate) limits: Limits,
    tls: WasiTlsCtx,
    shared: Arc<Shared>,
}

/// How instances are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One instance, which runs to its end.
    Command,
    /// Many, each of which answers HTTP requests.
    Handler,
}

impl Prepared {
    /// For this component.
    pub(crate) fn new(component: &Component) -> Self {
        let imports = Imports::of(component);
        Self { imports, roots: if imports.tls() { NodeRoots::find() } else { NodeRoots::default() } }
    }

    /// A linker with what the component imports, and nothing else.
    pub(crate) fn linker(&self, engine: &Engine) -> Result<Linker<State>, Error> {
        self.imports.linker(engine)
    }
}

impl World {
    /// Opens what `guest` is granted. Called in the sealed init.
    pub(crate) fn open(prepared: Prepared, guest: &Guest, memory: MemoryBound, role: Role) -> Result<Self, Error> {
        let Prepared { imports, roots } = prepared;
        let handler = role == Role::Handler;
        let mut granted = wasi::grants(guest, imports, role)?.build();
        let tls = Tls::new(roots, guest);
        Ok(Self {
            args: guest.args.clone(),
            env: wasi::environment(guest),
            cwd: guest.cwd.to_string_lossy().into_owned(),
            memory,
            most: guest.http.memory.filter(|_| handler),
            budget: handler.then(|| Arc::new(Budget::new(memory))),
            handler,
            filesystem: mem::take(granted.filesystem()),
            sockets: mem::take(granted.sockets()),
            shared: Arc::new(Shared {
                config: guest.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
                keyvalue: KeyValue::new(guest.memory),
            }),
            outbound: Outbound::new(guest, tls),
            imports,
        })
    }

    /// A store for one instance, bounded. It costs no system call.
    pub(crate) fn store(&self, engine: &Engine) -> Store<State> {
        let mut store = Store::new(engine, self.state());
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(CALL_BYTES);
        store.set_max_component_handles(RESOURCES);
        store
    }

    fn state(&self) -> State {
        let mut wasi = WasiCtxBuilder::new();
        wasi.inherit_stdout().inherit_stderr().max_random_size(wasi::RANDOM_BYTES);
        if !self.handler {
            wasi.inherit_stdin();
        }
        if self.imports.environment {
            wasi.args(&self.args).envs(&self.env).initial_cwd(&self.cwd);
        }
        let mut wasi = wasi.build();
        *wasi.filesystem() = self.filesystem.clone();
        *wasi.sockets() = self.sockets.clone();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        State {
            wasi,
            table,
            http: WasiHttpCtx::new(),
            limits: Limits::new(self.memory, self.most, self.budget.clone()),
            tls: self.outbound.tls().context(),
            outbound: self.outbound.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl State {
    pub(crate) fn config(&self) -> &WasiConfigVariables {
        &self.shared.config
    }

    pub(crate) fn keyvalue(&mut self) -> (&KeyValue, &mut ResourceTable) {
        (&self.shared.keyvalue, &mut self.table)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

impl WasiTlsView for State {
    fn tls(&mut self) -> WasiTlsCtxView<'_> {
        WasiTlsCtxView { ctx: &mut self.tls, table: &mut self.table }
    }
}
