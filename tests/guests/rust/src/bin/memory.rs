//! Grows its memory by a MiB at a time, and writes to each page, until that fails or 4 GiB are reached, which is all that 32 bits address.

use std::arch::wasm32::{memory_grow, memory_size};

const PAGE: usize = 64 * 1024;
const PAGES_A_MIB: usize = 16;
const ENOUGH_MIB: usize = 4096;

fn main() {
    while memory_size(0) / PAGES_A_MIB < ENOUGH_MIB {
        let old_size = memory_grow(0, PAGES_A_MIB);
        if old_size == usize::MAX {
            println!("memory.grow failed at {} MiB", memory_size(0) / PAGES_A_MIB);
            return;
        }
        for page in old_size..old_size + PAGES_A_MIB {
            // Every 4 KiB: the size of the host's pages.
            for at in (0..PAGE).step_by(4096) {
                // SAFETY: memory that was just added, which the allocator doesn't know of.
                unsafe { ((page * PAGE + at) as *mut u8).write_volatile(1) };
            }
        }
    }
    println!("got {ENOUGH_MIB} MiB");
}
