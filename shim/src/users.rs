//! User namespaces that nobody is in: of their ids, mounts are shown as if all files belonged to them.
//!
//! A process makes one, and must have no other thread: this program again, with [`run`] in place of `main`. It ends as soon as
//! the daemon has the namespace open.

use std::{
    env,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use lighter_runtime_api::id_map::{IdMaps, IdRange};
use nix::sched::{CloneFlags, unshare};

/// The action under which the daemon runs it.
pub(crate) const ACTION: &str = "make-users";

/// Makes the namespace, says so by a byte on standard output, and stays until standard input ends.
pub(crate) fn run() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("make a user namespace")?;
    let mut output = io::stdout();
    output.write_all(&[0]).and_then(|()| output.flush()).context("answer the daemon")?;
    io::stdin().read(&mut [0]).map(drop).context("wait for the daemon")
}

/// Makes one with these ids.
pub(crate) fn make(maps: &IdMaps) -> io::Result<OwnedFd> {
    let mut command = Command::new(env::current_exe()?);
    command
        .arg(ACTION)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn()?;
    let made = process.stdout.take().map_or(Ok(0), |mut output| output.read(&mut [0]));
    let opened = match made {
        Ok(1) => maps.give(process.id()),
        Ok(_) => {
            let mut why = String::new();
            let _ = process.stderr.take().map(|errors| errors.take(512).read_to_string(&mut why));
            Err(io::Error::other(why.trim().to_owned()))
        }
        Err(error) => Err(error),
    };
    drop(process.stdin.take());
    // Whatever comes of it: it does nothing but end.
    let _ = process.wait();
    opened
}

/// Reads a list of ids as containerd writes it into the options of a mount: `inside:outside:count`, with commas between.
pub(crate) fn parse(list: &str) -> Option<Vec<IdRange>> {
    let range = |text: &str| {
        let numbers: Vec<u32> = text.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
        let &[inside, outside, count] = numbers.as_slice() else { return None };
        Some(IdRange { inside, outside, count })
    };
    list.split(',').map(range).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ids_are_read() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(parse("0:200000:65536"), Some(vec![range(0, 200_000, 65_536)]));
        assert_eq!(parse("0:5:1,1:7:2"), Some(vec![range(0, 5, 1), range(1, 7, 2)]));
        for nonsense in ["", "0:1", "0:1:2:3", "0:1:2,", "a:1:2", "-1:1:2", "0:1:4294967296"] {
            assert_eq!(parse(nonsense), None, "{nonsense}");
        }
    }
}
