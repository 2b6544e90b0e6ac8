//! Four threads add up a quarter of a million numbers each; one counter, a mutex, and joins.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

const THREADS: u64 = 4;
const EACH: u64 = 250_000;

fn main() {
    let (total, done) = (Arc::new(Mutex::new(0)), Arc::new(AtomicU32::new(0)));
    let threads = (0..THREADS).map(|index| {
        let (total, done) = (total.clone(), done.clone());
        thread::spawn(move || {
            let sum: u64 = (index * EACH..(index + 1) * EACH).sum();
            *total.lock().expect("the lock") += sum;
            done.fetch_add(1, Ordering::Relaxed);
        })
    });
    // All of them are started before one is waited for.
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("a thread");
    }
    println!("{} threads, total {}", done.load(Ordering::Relaxed), total.lock().expect("the lock"));
}
