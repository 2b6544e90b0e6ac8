//! Prints as many bytes as the first argument says, in lines of 80.

use std::{
    env,
    io::{self, BufWriter, Write},
};

const LINE: &[u8; 80] = b"0123456789012345678901234567890123456789012345678901234567890123456789012345678\n";

fn main() -> io::Result<()> {
    let mut left: usize = env::args().nth(1).expect("a number of bytes").parse().expect("a number");
    let mut stdout = BufWriter::with_capacity(64 * 1024, io::stdout());
    while left > 0 {
        let now = left.min(LINE.len());
        stdout.write_all(&LINE[..now])?;
        left -= now;
    }
    stdout.flush()
}
