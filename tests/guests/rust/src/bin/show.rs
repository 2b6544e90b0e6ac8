//! What the guest was given: arguments, environment (sorted) and current folder, one a line.

use std::env;

fn main() {
    for (index, argument) in env::args().enumerate() {
        println!("arg[{index}]={argument}");
    }
    let mut variables: Vec<_> = env::vars().collect();
    variables.sort();
    for (name, value) in variables {
        println!("env {name}={value}");
    }
    match env::current_dir() {
        Ok(folder) => println!("cwd={}", folder.display()),
        Err(error) => println!("cwd: {error}"),
    }
}
