//! How many instances there may be at once, and how much address space each may take.

use lighter_runtime_api::Guest;
use wasmtime::{Enabled, PoolingAllocationConfig, ResourcesRequired};

/// Bytes of a page of linear memory. Source: WebAssembly core spec §4.2.8.
const PAGE: u64 = 64 << 10;
/// What a 32-bit linear memory may grow to, in bytes.
const MAX_MEMORY: u64 = 1 << 32;
/// Instances that one container may have: each reserves some 4 GiB of the process's 128 TiB of addresses.
const MAX_INSTANCES: u64 = 1000;
/// Instances where neither memory nor the user sets a bound.
const INSTANCES: u64 = 128;
/// Bytes that an instance takes beside its linear memory, or at least: its stack, tables and the host's own.
const OVERHEAD: u64 = 256 << 10;
/// Modules inside a component: what the adapters of the toolchains come to, generously.
const MODULES: u32 = 64;
/// Elements of a table, at least; Wasmtime's default.
const TABLE: u64 = 20_000;
/// Calls of an instance that may be under way at once, each with a stack: more than one where a component is async.
const CALLS: u32 = 4;
/// Bytes of a linear memory that are written over for the next instance: for a small guest, all that it wrote. What is
/// beyond goes back to the kernel, which costs a system call, a fault for each page, and other threads an interrupt.
const KEEP: usize = 512 << 10;
/// The same for tables.
const KEEP_TABLE: usize = 16 << 10;
/// Connections where memory sets no bound.
const CONNECTIONS: u64 = 16_384;
/// Bytes that a connection may take: buffers of the server's and of the kernel's.
const CONNECTION: u64 = 32 << 10;

/// The size of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    /// Instances at once.
    pub(super) instances: u32,
    /// Connections at once.
    pub(super) connections: u32,
    /// Memories of each.
    memories: u32,
    /// Tables of each.
    tables: u32,
    /// Elements of each table.
    elements: usize,
    /// Bytes that each memory may grow to.
    memory: usize,
}

impl Pool {
    /// As many instances as fit into the guest's memory at the size that they have at first, unless the user says how many.
    pub(super) fn new(required: Option<&ResourcesRequired>, guest: &Guest) -> Self {
        let initial = required.and_then(|r| r.max_initial_memory_size).unwrap_or(0).saturating_mul(PAGE);
        let memories = required.map_or(1, |r| r.num_memories).max(1);
        let each = initial.saturating_mul(memories.into()).saturating_add(OVERHEAD);
        let instances = match (guest.http.concurrency, guest.memory) {
            (Some(asked), _) => asked.get().into(),
            (None, Some(memory)) => memory / each,
            (None, None) => INSTANCES,
        };
        let elements = required.and_then(|r| r.max_initial_table_size).unwrap_or(0).max(TABLE);
        Self {
            instances: u32::try_from(instances.clamp(1, MAX_INSTANCES)).unwrap_or(1),
            connections: guest.memory.map_or(CONNECTIONS, |m| (m / CONNECTION).clamp(64, CONNECTIONS)) as u32,
            memories,
            tables: required.map_or(1, |r| r.num_tables).max(1),
            elements: usize::try_from(elements).unwrap_or(usize::MAX),
            // Not the container's bound, which may change: the limiter knows it as it is. Nor must a memory that is larger from
            // the start fail to load: the limiter refuses it with a better error. Slots take addresses, not memory.
            memory: usize::try_from(guest.http.memory.unwrap_or(MAX_MEMORY).min(MAX_MEMORY).max(initial))
                .unwrap_or(usize::MAX),
        }
    }

    pub(super) fn config(&self) -> PoolingAllocationConfig {
        let mut config = PoolingAllocationConfig::new();
        config
            .total_component_instances(self.instances)
            .total_core_instances(self.instances.saturating_mul(MODULES))
            .total_memories(self.instances.saturating_mul(self.memories))
            .total_tables(self.instances.saturating_mul(self.tables))
            .total_stacks(self.instances.saturating_mul(CALLS))
            .total_gc_heaps(self.instances)
            .max_memory_size(self.memory)
            .table_elements(self.elements)
            .max_unused_warm_slots(0);
        // The kernel says what was written since Linux 6.7. Without it, all would have to be written over.
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            config.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEEP).table_keep_resident(KEEP_TABLE);
        }
        config
    }
}
