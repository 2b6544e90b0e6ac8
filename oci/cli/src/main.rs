//! `lighter`: builds, pushes, pulls, inspects and runs WebAssembly images.
//!
//! Each command is a file in `commands/`: its arguments, and a function that does it. What they share: the local `store`,
//! the `registry` client, `transfer` between the two and archives, the `output`.
//! Must not know: engines (it starts their runners), ttrpc.

mod build;
mod commands;
mod doctor;
mod engines;
mod inspect;
mod output;
mod pending;
mod reference;
mod registry;
mod run;
mod store;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

use crate::{commands::Command, output::Output};

/// WebAssembly images: build, ship and run them.
///
/// Three jobs:
///
///   lighter run hello.wasm                                 run a module in a sandbox, here and now
///   lighter build hello.wasm -t ghcr.io/me/hello:1         make it an image
///   lighter push ghcr.io/me/hello:1                        put it where containerd and Docker find it
///
/// On a node with the shim installed, images built with `--format image` run as containers, with `--format tar` also by
/// Docker before 27:
///
///   docker run --runtime io.containerd.lighter.v1 --platform wasi/wasm ghcr.io/me/hello:1
///   ctr run --runtime io.containerd.lighter.v1 --platform wasi/wasm ghcr.io/me/hello:1 h
///
/// Images are kept in $LIGHTER_STORE, which is /var/lib/lighter/store for root and ~/.local/share/lighter/store for others
/// unless it is set.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage. `run` gives the guest's own, 124 after a timeout, 125 if it could not start.
#[derive(Parser)]
#[command(name = "lighter", version = output::VERSION, verbatim_doc_comment, max_term_width = 120)]
struct Arguments {
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Print no progress
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json, arguments.quiet);
    registry::install_tls();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(arguments.command.run(&output)));
    match done {
        Ok(code) => code,
        Err(error) => {
            output.failed(&error);
            ExitCode::FAILURE
        }
    }
}
