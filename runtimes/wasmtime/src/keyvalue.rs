//! `wasi:keyvalue`: one store in memory for all instances of a container, gone with it.
//!
//! Wasmtime's own gives every bucket that is opened a copy for itself, and has no bounds.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use crate::state::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: trappable },
        with: { "wasi:keyvalue/store.bucket": crate::keyvalue::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => crate::keyvalue::Error },
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

/// Bytes that a store may hold at most. Of a container with a memory limit it is an eighth of that, if that is less.
const BYTES: usize = 64 << 20;
/// What an entry takes besides its key and its value.
const OVERHEAD: usize = 128;
/// Keys in one answer to `list-keys`.
const PAGE: usize = 1000;
/// Names of the one store there is.
const NAMES: &[&str] = &["", "default"];

/// A key and its value.
type Pair = (String, Vec<u8>);

/// A container's store.
#[derive(Debug)]
pub(crate) struct KeyValue {
    entries: Mutex<Entries>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Entries {
    values: BTreeMap<String, Vec<u8>>,
    /// Bytes that they take.
    bytes: usize,
}

/// A handle to the store. There is but one.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the bindings re-export it")]
pub struct Bucket;

/// What a guest is told.
#[derive(Debug, PartialEq, Eq)]
#[allow(unreachable_pub, reason = "the bindings re-export it")]
pub enum Error {
    /// There is no store of this name.
    NoSuchStore,
    /// It can't be done, and why.
    Refused(String),
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A store as one instance sees it.
pub(crate) struct View<'a> {
    store: &'a KeyValue,
    table: &'a mut ResourceTable,
}

impl KeyValue {
    /// `memory` is the container's, in bytes.
    pub(crate) fn new(memory: Option<u64>) -> Self {
        let share = memory.map(|bytes| usize::try_from(bytes / 8).unwrap_or(usize::MAX));
        Self { entries: Mutex::default(), bytes: share.unwrap_or(BYTES).min(BYTES) }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Nothing in here leaves entries half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries().values.get(key).cloned()
    }

    fn set(&self, key: String, value: Vec<u8>) -> Result<(), Error> {
        self.entries().set(key, value, self.bytes)
    }

    fn delete(&self, key: &str) {
        let mut entries = self.entries();
        if let Some(value) = entries.values.remove(key) {
            entries.bytes -= size(key, &value);
        }
    }

    /// At most [`PAGE`] keys from number `cursor` on, and the number of the next.
    fn keys(&self, cursor: u64) -> (Vec<String>, Option<u64>) {
        let entries = self.entries();
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let keys: Vec<String> = entries.values.keys().skip(start).take(PAGE).cloned().collect();
        let end = start.saturating_add(keys.len());
        let next = (end < entries.values.len()).then_some(end as u64);
        (keys, next)
    }

    fn increment(&self, key: String, delta: u64) -> Result<u64, Error> {
        let mut entries = self.entries();
        let number = match entries.values.get(&key) {
            None => 0,
            Some(value) => {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
                number.ok_or_else(|| Error::Refused("the value is not a number".to_owned()))?
            }
        };
        let number = number.checked_add(delta).ok_or_else(|| Error::Refused("the number is too large".to_owned()))?;
        entries.set(key, number.to_string().into_bytes(), self.bytes)?;
        Ok(number)
    }

    /// Bounded as the store is: the same key may be asked for many times.
    fn get_many(&self, keys: Vec<String>) -> Result<Vec<Option<Pair>>, Error> {
        let entries = self.entries();
        let mut left = self.bytes;
        let mut get = |key: String| {
            let Some(value) = entries.values.get(&key) else { return Ok(None) };
            let refused = || Error::Refused(format!("the values take more than {} bytes together", self.bytes));
            left = left.checked_sub(size(&key, value)).ok_or_else(refused)?;
            Ok(Some((key, value.clone())))
        };
        keys.into_iter().map(&mut get).collect()
    }
}

impl Entries {
    fn set(&mut self, key: String, value: Vec<u8>, most: usize) -> Result<(), Error> {
        let before = self.values.get(&key).map_or(0, |value| size(&key, value));
        let bytes = self.bytes - before + size(&key, &value);
        if bytes > most {
            return Err(Error::Refused(format!("the store is full: it holds {most} bytes")));
        }
        self.bytes = bytes;
        self.values.insert(key, value);
        Ok(())
    }
}

fn size(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

/// Adds `wasi:keyvalue`'s interfaces.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, HasView>(linker, view)?;
    atomics::add_to_linker::<_, HasView>(linker, view)?;
    batch::add_to_linker::<_, HasView>(linker, view)
}

fn view(state: &mut State) -> View<'_> {
    let (store, table) = state.keyvalue();
    View { store, table }
}

struct HasView;

impl HasData for HasView {
    type Data<'a> = View<'a>;
}

impl store::Host for View<'_> {
    fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        if NAMES.contains(&identifier.as_str()) { Ok(self.table.push(Bucket)?) } else { Err(Error::NoSuchStore) }
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        Ok(match error {
            Error::NoSuchStore => store::Error::NoSuchStore,
            Error::Refused(why) => store::Error::Other(why),
        })
    }
}

impl store::HostBucket for View<'_> {
    fn get(&mut self, _: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.store.get(&key))
    }

    fn set(&mut self, _: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Error> {
        self.store.set(key, value)
    }

    fn delete(&mut self, _: Resource<Bucket>, key: String) -> Result<(), Error> {
        self.store.delete(&key);
        Ok(())
    }

    fn exists(&mut self, _: Resource<Bucket>, key: String) -> Result<bool, Error> {
        Ok(self.store.entries().values.contains_key(&key))
    }

    fn list_keys(&mut self, _: Resource<Bucket>, cursor: Option<u64>) -> Result<store::KeyResponse, Error> {
        let (keys, cursor) = self.store.keys(cursor.unwrap_or(0));
        Ok(store::KeyResponse { keys, cursor })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    fn increment(&mut self, _: Resource<Bucket>, key: String, delta: u64) -> Result<u64, Error> {
        self.store.increment(key, delta)
    }
}

impl batch::Host for View<'_> {
    fn get_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Result<Vec<Option<Pair>>, Error> {
        self.store.get_many(keys)
    }

    fn set_many(&mut self, _: Resource<Bucket>, pairs: Vec<Pair>) -> Result<(), Error> {
        pairs.into_iter().try_for_each(|(key, value)| self.store.set(key, value))
    }

    fn delete_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Result<(), Error> {
        keys.iter().for_each(|key| self.store.delete(key));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_its_share_of_memory_allows() {
        let store = KeyValue::new(Some(8 * 400));
        store.set("a".to_owned(), vec![0; 200]).unwrap();
        assert!(store.set("b".to_owned(), Vec::new()).is_err());
        // The same key again takes no more.
        store.set("a".to_owned(), vec![1; 271]).unwrap();
        assert!(store.set("a".to_owned(), vec![1; 272]).is_err());
        assert_eq!(store.get("a").unwrap().len(), 271);
        store.delete("a");
        store.delete("a");
        store.set("b".to_owned(), vec![0; 271]).unwrap();
        assert_eq!(store.entries().bytes, 400);
    }

    #[test]
    fn an_answer_is_no_larger_than_the_store() {
        let store = KeyValue::new(Some(8 * 1000));
        store.set("a".to_owned(), vec![0; 300]).unwrap();
        let ask = |times: usize| store.get_many(vec!["a".to_owned(); times]);
        assert_eq!(ask(2).unwrap().len(), 2);
        assert!(ask(3).is_err());
        assert_eq!(store.get_many(vec!["b".to_owned()]).unwrap(), [None]);
    }

    #[test]
    fn keys_come_page_by_page() {
        let store = KeyValue::new(None);
        for number in 0..PAGE + 1 {
            store.set(format!("{number:05}"), Vec::new()).unwrap();
        }
        let (first, cursor) = store.keys(0);
        assert_eq!((first.len(), cursor), (PAGE, Some(PAGE as u64)));
        assert_eq!(store.keys(PAGE as u64), (vec![format!("{PAGE:05}")], None));
        assert_eq!(store.keys(u64::MAX), (Vec::new(), None));
    }

    #[test]
    fn numbers_are_added_to() {
        let store = KeyValue::new(None);
        assert_eq!(store.increment("n".to_owned(), 2), Ok(2));
        assert_eq!(store.increment("n".to_owned(), 3), Ok(5));
        assert_eq!(store.get("n").unwrap(), b"5");
        assert!(store.increment("n".to_owned(), u64::MAX).is_err());
        store.set("text".to_owned(), b"five".to_vec()).unwrap();
        assert!(store.increment("text".to_owned(), 1).is_err());
    }
}
