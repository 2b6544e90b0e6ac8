//! Prints `ready`, sleeps as many seconds as the first argument says (an hour without one), prints `done`.

use std::{env, thread, time::Duration};

fn main() {
    let seconds = env::args().nth(1).map_or(3600, |seconds| seconds.parse().expect("a number of seconds"));
    println!("ready");
    thread::sleep(Duration::from_secs(seconds));
    println!("done");
}
