//! A greeting, the arguments, one environment variable; then exit code 3.

use std::{env, process};

fn main() {
    println!("hello from Rust");
    for argument in env::args().skip(1) {
        println!("arg {argument}");
    }
    println!("COLOUR={}", env::var("COLOUR").unwrap_or_else(|_| "none".into()));
    process::exit(3);
}
