//! One line to each of stdout and stderr.

fn main() {
    println!("hello from wasm");
    eprintln!("and to stderr");
}
