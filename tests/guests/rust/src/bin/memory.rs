//! Grows its memory by a MiB at a time, and writes to each page, until that fails or 4 GiB are reached, which is all that 32 bits address. With an
//! argument, it tries again for each line that it reads.

use std::{
    arch::wasm32::{memory_grow, memory_size},
    env, io,
};

const PAGE: usize = 64 * 1024;
const PAGES_A_MIB: usize = 16;
const ENOUGH_MIB: usize = 4096;

fn main() {
    while memory_size(0) / PAGES_A_MIB < ENOUGH_MIB {
        let old_size = memory_grow(0, PAGES_A_MIB);
        if old_size == usize::MAX {
            println!("memory.grow failed at {} MiB", memory_size(0) / PAGES_A_MIB);
            let mut line = String::new();
            if env::args().len() < 2 || io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            continue;
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
