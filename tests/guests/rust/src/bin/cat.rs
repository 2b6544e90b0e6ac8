//! Copies stdin to stdout, at once, until its end; then tells the number of bytes on stderr.

use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let (mut stdin, mut stdout) = (io::stdin(), io::stdout());
    let mut buffer = [0; 64 * 1024];
    let mut total = 0;
    loop {
        let read = stdin.read(&mut buffer)?;
        if read == 0 {
            eprintln!("EOF {total}");
            return Ok(());
        }
        stdout.write_all(&buffer[..read])?;
        stdout.flush()?;
        total += read;
    }
}
