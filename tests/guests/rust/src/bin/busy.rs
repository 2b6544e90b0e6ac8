//! Prints `ready` and computes for ever, without a call to the host.

use std::hint::black_box;

fn main() {
    println!("ready");
    let mut count: u64 = 0;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}
