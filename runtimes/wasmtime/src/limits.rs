//! Bounds on what an instance may allocate.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use wasmtime::ResourceLimiter;

/// Bytes of the engine's that one element of a table takes, generously.
const ELEMENT: usize = 16;
/// Elements of tables where memory has no bound: many times what compilers emit.
const ELEMENTS: usize = 10_000_000;

/// Bytes of linear memory that all instances of a container have left together. Without it, the kernel would end them all
/// for what one takes.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    /// In bytes.
    pub(crate) fn new(memory: u64) -> Self {
        Self(AtomicUsize::new(usize::try_from(memory).unwrap_or(usize::MAX)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is left of the memory that one store's instances may have together. A module may have many memories, and a
/// component many modules: a bound on each would be none.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Bytes of linear memory.
    memory: usize,
    /// Elements of tables.
    elements: usize,
    /// What was granted last, to be taken back if it could not be had.
    granted: usize,
    /// What it shares with other stores, and how much of that it has taken.
    shared: Option<Arc<Budget>>,
    taken: usize,
}

impl Drop for Limits {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.give_back(self.taken);
        }
    }
}

impl Limits {
    /// `memory` in bytes; `None` for what the host has. `shared` bounds it as well.
    pub(crate) fn new(memory: Option<u64>, shared: Option<Arc<Budget>>) -> Self {
        let memory = memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Self {
            memory: memory.unwrap_or(usize::MAX),
            elements: memory.map_or(ELEMENTS, |bytes| (bytes / ELEMENT).min(ELEMENTS)),
            granted: 0,
            shared,
            taken: 0,
        }
    }
}

/// Takes the growth out of what is left, or says that there isn't as much.
fn grow(left: &mut usize, granted: &mut usize, growth: usize) -> bool {
    let Some(rest) = left.checked_sub(growth) else { return false };
    (*left, *granted) = (rest, growth);
    true
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let possible = maximum.is_none_or(|maximum| desired <= maximum);
        let growth = desired.saturating_sub(current);
        if !possible || growth > self.memory || self.shared.as_ref().is_some_and(|shared| !shared.take(growth)) {
            return Ok(false);
        }
        self.taken = self.taken.saturating_add(growth);
        Ok(grow(&mut self.memory, &mut self.granted, growth))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        let granted = mem::take(&mut self.granted);
        self.memory = self.memory.saturating_add(granted);
        self.taken = self.taken.saturating_sub(granted);
        if let Some(shared) = &self.shared {
            shared.give_back(granted);
        }
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let possible = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(possible && grow(&mut self.elements, &mut self.granted, desired.saturating_sub(current)))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.elements = self.elements.saturating_add(mem::take(&mut self.granted));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_bound() {
        let mut limits = Limits::new(Some(100), None);
        // Current size, desired size, the memory's own maximum, whether it may be.
        let table = [
            (0, 60, None, true),
            (0, 60, None, false),
            (60, 90, None, true),
            (0, 10, Some(9), false),
            (0, 10, None, true),
            (10, 11, None, false),
        ];
        for (current, desired, maximum, expected) in table {
            assert_eq!(limits.memory_growing(current, desired, maximum).unwrap(), expected, "{current} to {desired}");
        }
    }

    #[test]
    fn what_could_not_be_had_is_left() {
        let mut limits = Limits::new(Some(100), None);
        assert!(limits.memory_growing(0, 100, None).unwrap());
        limits.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert!(limits.memory_growing(0, 100, None).unwrap());
        assert!(!limits.memory_growing(100, 101, None).unwrap());
    }

    #[test]
    fn tables_are_bounded_with_and_without_a_limit() {
        assert!(!Limits::new(None, None).table_growing(0, ELEMENTS + 1, None).unwrap());
        assert!(!Limits::new(Some(160), None).table_growing(0, 11, None).unwrap());
        assert!(Limits::new(Some(160), None).table_growing(0, 10, None).unwrap());
    }
    #[test]
    fn stores_share_a_budget_and_give_it_back() {
        let budget = Arc::new(Budget::new(150));
        let limits = || Limits::new(Some(100), Some(Arc::clone(&budget)));
        let (mut first, mut second) = (limits(), limits());
        assert!(first.memory_growing(0, 100, None).unwrap());
        assert!(!first.memory_growing(100, 101, None).unwrap(), "its own bound");
        assert!(!second.memory_growing(0, 60, None).unwrap(), "what both have");
        assert!(second.memory_growing(0, 50, None).unwrap());
        second.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        drop(first);
        assert!(second.memory_growing(0, 100, None).unwrap());
        assert!(limits().memory_growing(0, 50, None).unwrap());
        drop(second);
        assert_eq!(budget.0.load(Ordering::Relaxed), 150);
    }
}
