//! The supervisor of a bed: a process outside of it, single-threaded, that makes it and takes it down.
//!
//! Its standard input is a pipe that only the test process holds. When that ends, in whatever way, the
//! pipe does too, and the bed goes: kernel kills all in a pid namespace when its pid 1 dies. The same
//! kind of pipe leads from here to the bed's pid 1, for the case that the supervisor itself is killed.

use std::{
    env,
    ffi::OsString,
    io::{self, Read, Write},
    path::PathBuf,
    process::{self, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::{cgroup::Cgroups, vm};

/// What a bed is made of. The same arguments go to the supervisor and to the bed's pid 1.
#[derive(clap::Args, Clone, Debug)]
pub struct Parts {
    /// Host name in the bed.
    #[arg(long)]
    pub hostname: String,
    /// Root filesystem; only read.
    #[arg(long)]
    pub rootfs: PathBuf,
    /// Laid over the root filesystem; only read.
    #[arg(long)]
    pub layer: Option<PathBuf>,
    /// What appears as /usr/local in the bed; only read.
    #[arg(long)]
    pub usr_local: PathBuf,
}

impl Parts {
    /// The command line that clap reads these from.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![
            "--hostname".into(),
            self.hostname.clone().into(),
            "--rootfs".into(),
            self.rootfs.clone().into(),
            "--usr-local".into(),
            self.usr_local.clone().into(),
        ];
        if let Some(layer) = &self.layer {
            arguments.extend(["--layer".into(), layer.into()]);
        }
        arguments
    }
}

/// Makes a bed, prints the host's pid of its pid 1 as a line, and holds it until standard input ends;
/// then removes it.
///
/// # Errors
/// When the bed can't be made or removed.
pub fn hold(parts: &Parts) -> Result<()> {
    let cgroups = Cgroups::create(process::id())?;
    hold_until_end(parts, &cgroups).and(cgroups.remove())
}

fn hold_until_end(parts: &Parts, cgroups: &Cgroups) -> Result<()> {
    if !vm::has_systemds_cgroups() {
        // Only children are put in the new namespace, so the next one is its pid 1.
        unshare(CloneFlags::CLONE_NEWPID).context("make a pid namespace")?;
    }
    let mut init = Command::new(env::current_exe().context("find own executable")?)
        .arg("init")
        .args(parts.to_arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start the bed's pid 1")?;
    let mut to_init = init.stdin.take().context("take the pipe to pid 1")?;
    let mut from_init = init.stdout.take().context("take the pipe from pid 1")?;

    let made = (|| {
        cgroups.put(init.id())?;
        to_init.write_all(b"g").context("tell pid 1 to go")?;
        let mut ready = [0];
        ensure!(from_init.read(&mut ready).context("hear from pid 1")? == 1, "the bed could not be set up");
        let mut stdout = io::stdout();
        writeln!(stdout, "{}", init.id()).and_then(|()| stdout.flush()).context("tell the bed's pid")
    })();
    if made.is_ok() {
        io::copy(&mut io::stdin(), &mut io::sink()).context("wait for the test process")?;
    }
    init.kill().context("kill the bed's pid 1")?;
    cgroups.thaw();
    init.wait().context("wait for the bed's end")?;
    made
}
