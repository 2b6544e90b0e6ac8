//! Exits with the code that the first argument says.

use std::{env, process};

fn main() {
    let code = env::args().nth(1).expect("an exit code").parse().expect("a number");
    process::exit(code);
}
