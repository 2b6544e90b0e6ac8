//! A command of WASI 0.3, by its own interfaces and not by the standard library's, which are WASI 0.2's. The first argument
//! says what it does:
//!
//! | argument | what comes |
//! |---|---|
//! | `greet` | a greeting, the other arguments, one environment variable; then an exit code that tells failure |
//! | `cwd` | the working folder |
//! | `cat` | stdin, as it comes |
//! | `clocks`, `random` | as `rust/src/bin` has them |
//! | `read PATH` | a file |
//! | `write PATH TEXT` | writes a file |
//! | `exchange IP:PORT` | listens there, connects to itself, and sends a line both ways |
//! | `resolve NAME` | the addresses |
//! | `flood N` | so many bytes, in lines of 80 |
//! | `busy` | `ready`; then computes for ever |
//! | `trap` | traps some calls deep |

mod files;
mod network;

use std::{collections::HashSet, hint::black_box};

use wasip3::{
    cli::{environment, stdin, stdout},
    clocks::{monotonic_clock, system_clock},
    random::random,
    wit_bindgen::StreamResult,
    wit_stream,
};

const PIECE: usize = 64 * 1024;

struct Command;

wasip3::cli::command::export!(Command);

impl wasip3::exports::cli::run::Guest for Command {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
        let text = match arguments[..] {
            ["greet", ref others @ ..] => {
                print(greeting(others)).await?;
                return Err(());
            }
            ["cwd"] => format!("cwd={}", environment::get_initial_cwd().unwrap_or_default()),
            ["cat"] => return cat().await,
            ["clocks"] => clocks().await,
            ["random"] => {
                let distinct: HashSet<u8> = random::get_random_bytes(256).into_iter().collect();
                format!("bytes {}", if distinct.len() > 100 { "random" } else { "not random" })
            }
            ["read", path] => files::read(path).await,
            ["write", path, text] => files::write(path, text).await,
            ["exchange", address] => network::exchange(address.parse().expect("an address")).await,
            ["resolve", name] => network::resolve(name).await,
            ["flood", bytes] => return flood(bytes.parse().expect("a number")).await,
            ["busy"] => {
                print("ready\n".into()).await?;
                busy()
            }
            ["trap"] => outer(arguments.len()),
            _ => format!("unknown operation {arguments:?}"),
        };
        print(text + "\n").await
    }
}

async fn print(text: String) -> Result<(), ()> {
    let (mut stream, data) = wit_stream::new();
    let written = stdout::write_via_stream(data);
    stream.write_all(text.into_bytes()).await;
    drop(stream);
    written.await.map_err(drop)
}

fn greeting(arguments: &[&str]) -> String {
    let colour = environment::get_environment().into_iter().find(|(name, _)| name == "COLOUR");
    let mut text = "hello from WASI 0.3\n".to_owned();
    text.extend(arguments.iter().map(|argument| format!("arg {argument}\n")));
    text + &format!("COLOUR={}\n", colour.map_or("none".into(), |(_, value)| value))
}

async fn cat() -> Result<(), ()> {
    let (mut input, _ended) = stdin::read_via_stream();
    let (mut output, data) = wit_stream::new();
    let written = stdout::write_via_stream(data);
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        let (result, read) = input.read(piece).await;
        piece = output.write_all(read).await;
        piece.reserve(PIECE);
        if !matches!(result, StreamResult::Complete(_)) {
            drop(output);
            return written.await.map_err(drop);
        }
    }
}

async fn clocks() -> String {
    let now = system_clock::now().seconds;
    let plausible = (1_577_836_800..4_102_444_800).contains(&now);
    let start = monotonic_clock::now();
    monotonic_clock::wait_for(50_000_000).await;
    let slept = monotonic_clock::now() - start;
    let as_asked = (50_000_000..1_000_000_000).contains(&slept);
    format!(
        "wall clock {}\nslept {}",
        if plausible { "plausible" } else { "wrong" },
        if as_asked { "as asked" } else { "otherwise" }
    )
}

async fn flood(mut left: usize) -> Result<(), ()> {
    let line = b"0123456789012345678901234567890123456789012345678901234567890123456789012345678\n";
    let piece = line.repeat(1000);
    let (mut output, data) = wit_stream::new();
    let written = stdout::write_via_stream(data);
    while left > 0 {
        let now = left.min(piece.len());
        output.write_all(piece[..now].to_vec()).await;
        left -= now;
    }
    drop(output);
    written.await.map_err(drop)
}

fn busy() -> ! {
    let mut count: u64 = 0;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

#[inline(never)]
fn outer(count: usize) -> ! {
    inner(count + 1)
}

#[inline(never)]
fn inner(count: usize) -> ! {
    panic!("the guest panics on purpose, {count}")
}
