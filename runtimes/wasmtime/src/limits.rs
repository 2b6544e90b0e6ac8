//! Bounds on what an instance may allocate.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use lighter_runtime_api::MemoryBound;
use wasmtime::ResourceLimiter;

/// Bytes of the engine's that one element of a table takes, generously.
const ELEMENT: usize = 16;
/// Elements of tables where memory has no bound: many times what compilers emit.
const ELEMENTS: usize = 10_000_000;

/// Bytes of linear memory that all instances of a container have together. Without a bound on it, the kernel would end them
/// all for what one takes.
#[derive(Debug)]
pub(crate) struct Budget {
    bound: MemoryBound,
    taken: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bound: MemoryBound) -> Self {
        Self { bound, taken: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let bound = bytes_of(self.bound.current());
        let within = |taken: usize| taken.checked_add(bytes).filter(|&taken| taken <= bound);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one store's instances have of the memory that they may have together. A module may have many memories, and a
/// component many modules: a bound on each would be none.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Bytes of linear memory that there may be now, and at any time.
    bound: MemoryBound,
    most: usize,
    /// Bytes that there are.
    taken: usize,
    /// Elements of tables that are left.
    elements: usize,
    /// What was granted last, to be taken back if it could not be had.
    granted: usize,
    /// What it shares with other stores.
    shared: Option<Arc<Budget>>,
}

impl Drop for Limits {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.give_back(self.taken);
        }
    }
}

impl Limits {
    /// Both `bound` and `most` bytes bound it; `None` for what the host has. So does `shared`.
    pub(crate) fn new(bound: MemoryBound, most: Option<u64>, shared: Option<Arc<Budget>>) -> Self {
        let most = bytes_of(most);
        let elements = (bytes_of(bound.current()).min(most) / ELEMENT).min(ELEMENTS);
        Self { bound, most, taken: 0, elements, granted: 0, shared }
    }
}

fn bytes_of(bound: Option<u64>) -> usize {
    bound.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let possible = maximum.is_none_or(|maximum| desired <= maximum);
        let growth = desired.saturating_sub(current);
        // Where the bound has fallen, there may be more than that already; it is not to become more.
        let bound = bytes_of(self.bound.current()).min(self.most);
        let taken = self.taken.checked_add(growth).filter(|&taken| possible && taken <= bound);
        let Some(taken) = taken else { return Ok(false) };
        if self.shared.as_ref().is_some_and(|shared| !shared.take(growth)) {
            return Ok(false);
        }
        (self.taken, self.granted) = (taken, growth);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        let granted = mem::take(&mut self.granted);
        self.taken = self.taken.saturating_sub(granted);
        if let Some(shared) = &self.shared {
            shared.give_back(granted);
        }
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let possible = maximum.is_none_or(|maximum| desired <= maximum);
        let growth = desired.saturating_sub(current);
        let Some(left) = self.elements.checked_sub(growth).filter(|_| possible) else { return Ok(false) };
        (self.elements, self.granted) = (left, growth);
        Ok(true)
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

    fn bounded(bytes: u64) -> Limits {
        Limits::new(MemoryBound::fixed(Some(bytes)), None, None)
    }

    #[test]
    fn memories_share_one_bound() {
        let mut limits = bounded(100);
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
        let mut limits = bounded(100);
        assert!(limits.memory_growing(0, 100, None).unwrap());
        limits.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert!(limits.memory_growing(0, 100, None).unwrap());
        assert!(!limits.memory_growing(100, 101, None).unwrap());
    }

    #[test]
    fn tables_are_bounded_with_and_without_a_limit() {
        assert!(!Limits::new(MemoryBound::fixed(None), None, None).table_growing(0, ELEMENTS + 1, None).unwrap());
        assert!(!bounded(160).table_growing(0, 11, None).unwrap());
        assert!(bounded(160).table_growing(0, 10, None).unwrap());
    }

    #[test]
    fn stores_share_a_budget_and_give_it_back() {
        let budget = Arc::new(Budget::new(MemoryBound::fixed(Some(150))));
        let limits = || Limits::new(MemoryBound::fixed(Some(200)), Some(100), Some(Arc::clone(&budget)));
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
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
