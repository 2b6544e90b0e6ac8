//! What a container's creation failed of, in words; where another engine would do, with that engine's name.
//!
//! No runner knows other engines. `lighter` beside it does.

use std::{
    env,
    fs::File,
    io::{self, Read, Seek},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lighter_oci::{ANNOTATION_PREFIX, Plan, listed};
use lighter_runtime_api::Error as EngineError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde::Deserialize;

use crate::{Error, layer};

/// Knows all engines.
const PROGRAM: &str = "lighter";
/// Nobody waits longer for advice.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of address space that it may have.
const MEMORY: u64 = 2 << 30;
/// Bytes that it may answer.
const MOST: u64 = 64 << 10;

/// Bytes of an error that are told: names out of a module may be in it, of any length.
const WORDS: usize = 8 << 10;

/// What `lighter engines --for` prints.
#[derive(Deserialize)]
struct Verdict {
    engines: Vec<Engine>,
}

#[derive(Deserialize)]
struct Engine {
    name: String,
    runs: bool,
}

/// The message about an error of `engine`'s.
pub(crate) fn message(error: &Error, engine: &str) -> String {
    let others = if is_of_engine(error) { others(engine).unwrap_or_default() } else { Vec::new() };
    let names: Vec<_> = others.iter().map(String::as_str).collect();
    let mut error = error.to_string();
    if error.len() > WORDS {
        error.truncate(error.floor_char_boundary(WORDS));
        error.push('…');
    }
    match names[..] {
        [] => error,
        [first, ..] => format!(
            "{error}; {} can run it: set the annotation {ANNOTATION_PREFIX}engine={first}",
            listed(&names, "and")
        ),
    }
}

/// Whether another engine could do better.
fn is_of_engine(error: &Error) -> bool {
    matches!(
        error,
        Error::Compile { .. }
            | Error::Load { source: EngineError::Unsupported { .. } | EngineError::Link(_), .. }
            | Error::Engine(EngineError::Unsupported { .. } | EngineError::Link(_))
    )
}

/// The engines but this one that can run the module of the plan on standard input. None where nobody can tell.
fn others(engine: &str) -> Option<Vec<String>> {
    // The plan was read from a file in memory. Who creates by hand, from a pipe, gets no advice.
    let mut plan = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    plan.rewind().ok()?;
    let plan: Plan = serde_json::from_reader(plan).ok()?;
    let module = layer::find(&plan).ok()?;
    let program = env::current_exe().ok()?.with_file_name(PROGRAM);
    let mut child = Command::new(program)
        .args(["engines", "--json", "--for", "-"])
        .env_clear()
        .current_dir("/")
        .stdin(module.file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let bounded = bound(&child);
    let answer = bounded.ok().and_then(|()| answer(&mut child, Instant::now() + PATIENCE));
    // One that has ended needs no signal.
    let _ = child.kill();
    let _ = child.wait();
    let verdict: Verdict = serde_json::from_slice(&answer?).ok()?;
    Some(
        verdict
            .engines
            .into_iter()
            .filter(|other| other.runs && other.name != engine)
            .map(|other| other.name)
            .collect(),
    )
}

/// The module that it reads is a stranger's.
fn bound(child: &Child) -> io::Result<()> {
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    prlimit(Some(Pid::from_child(child)), Resource::As, limit)?;
    Ok(())
}

/// What a program prints until its end.
fn answer(child: &mut Child, until: Instant) -> Option<Vec<u8>> {
    let mut output = child.stdout.take()?.take(MOST);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).ok()?;
        let mut ready = [PollFd::new(output.get_ref().as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, left).ok()? == 0 {
            return None;
        }
        match output.read(&mut buffer).ok()? {
            0 => return Some(answer),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}
