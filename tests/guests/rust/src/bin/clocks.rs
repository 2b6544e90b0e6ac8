//! The clocks: whether the wall clock is of this century, and a sleep of 50 ms lasts so long by the steady clock.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

const PAUSE: Duration = Duration::from_millis(50);
/// 2020-01-01 and 2100-01-01, in seconds since 1970.
const PLAUSIBLE: std::ops::Range<u64> = 1_577_836_800..4_102_444_800;

fn main() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
    println!("wall clock {}", if PLAUSIBLE.contains(&now.as_secs()) { "plausible" } else { "wrong" });
    let start = Instant::now();
    thread::sleep(PAUSE);
    let slept = start.elapsed();
    println!("slept {}", if (PAUSE..PAUSE * 20).contains(&slept) { "as asked" } else { "otherwise" });
}
