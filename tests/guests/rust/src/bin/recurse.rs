//! Calls itself: as deep as the first argument says, then prints that depth; for ever without one.

use std::{env, hint::black_box};

fn main() {
    let depth = env::args().nth(1).map_or(u64::MAX, |depth| depth.parse().expect("a number"));
    println!("reached {}", down(depth));
}

#[inline(never)]
fn down(left: u64) -> u64 {
    // Some bytes of the module's own stack as well.
    let local = black_box([left; 4]);
    if left == 0 { 0 } else { black_box(down(left - 1)) + u64::from(local[0] == left) }
}
