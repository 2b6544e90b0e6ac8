//! The testbed by hand, and the processes that hold it.

mod demo;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use lighter_tests::{Bed, PROGRAMS, Parts, Suite, guests, installer_image, is_static, vm, wasmedge};

/// A command by hand may take as long.
const VM_WITHIN: Duration = Duration::from_secs(60 * 60);

/// Real containerd and Docker in namespaces of their own, to test Lighter in.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make the root filesystems and build the guests, so that tests don't wait for them.
    Setup,
    /// A shell in a bed with all daemons running; what is done there is gone when the shell ends.
    Shell {
        /// trixie or forky
        suite: Suite,
    },
    /// Run a guest built from source with ctr and with docker, and show each command with its output.
    Demo,
    /// Write the image of the node installer, for `docker load`, `lighter load` and `ctr images import`.
    Installer {
        /// The image's name, such as ghcr.io/me/lighter-node:1
        name: String,
        /// The programs' folder, as `make install` fills it
        programs: PathBuf,
        /// The archive to be written
        archive: PathBuf,
    },
    /// Unpack what the WasmEdge engine is built with, and print the variables that name it.
    WasmedgeSdk,
    /// Run tests in a virtual machine with cgroup v2, systemd and AppArmor.
    V2,
    /// Run a command in such a machine, which sees the testbed's cache, the target folder and the checkout.
    Vm {
        /// Program and arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Be the job of such a machine.
    #[command(hide = true)]
    VmInside,
    /// Make a bed, hold it until standard input ends, and remove it.
    #[command(hide = true)]
    Hold(Parts),
    /// Be pid 1 of a bed.
    #[command(hide = true)]
    Init(Parts),
    /// Run a command in a bed.
    #[command(hide = true)]
    Exec {
        /// The host's pid of the bed's pid 1.
        init: u32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Action::Setup => setup()?,
        Action::Shell { suite } => return shell(suite),
        Action::Demo => demo::run()?,
        Action::Installer { name, programs, archive } => installer(&name, &programs, &archive)?,
        Action::WasmedgeSdk => {
            let sdk = wasmedge::sdk()?;
            println!("WASMEDGE_INCLUDE_DIR={} WASMEDGE_LIB_DIR={}", sdk.include.display(), sdk.lib.display());
        }
        Action::V2 => return exit_code(vm::lane()?),
        Action::Vm { command } => {
            let step = vm::Step { name: command.join(" "), command, ..vm::Step::default() };
            let job = vm::prepared(vm::Job { steps: vec![step], ..vm::Job::default() })?;
            return exit_code(vm::run(&job, VM_WITHIN)?);
        }
        Action::VmInside => match vm::inside()? {},
        Action::Hold(parts) => lighter_tests::hold(&parts)?,
        Action::Init(parts) => lighter_tests::init(&parts)?,
        Action::Exec { init, command } => return exit_code(lighter_tests::enter(init, &command)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn setup() -> Result<()> {
    for suite in Suite::ALL {
        let bed = Bed::fresh(suite);
        println!(
            "{suite}: {}",
            bed.sh("containerd --version; dockerd --version").try_run()?.stdout.replace('\n', "; ")
        );
    }
    guests::folders()?.iter().for_each(|folder| println!("guests: {}", folder.display()));
    Ok(())
}

fn installer(name: &str, programs: &Path, archive: &Path) -> Result<()> {
    let image = installer_image(name, programs).with_context(|| format!("read {}", programs.display()))?;
    for program in PROGRAMS {
        if !is_static(&fs::read(programs.join(program))?) {
            bail!("{program} needs a loader, which not every node has: see `make installer`");
        }
    }
    let image = image.compressed().to_tar();
    fs::write(archive, &image).with_context(|| format!("write {}", archive.display()))?;
    println!("{name}: {:.1} MiB in {}", image.len() as f64 / f64::from(1 << 20), archive.display());
    Ok(())
}

fn shell(suite: Suite) -> Result<ExitCode> {
    let bed = Bed::fresh(suite);
    bed.start_docker();
    bed.registry();
    let own = std::env::current_exe().context("find own executable")?;
    // Not a `Cmd`: the shell is to have the terminal.
    let status = Command::new(own).arg("exec").arg(bed.init().to_string()).args(["--", "bash", "-l"]).status();
    exit_code(status.context("run a shell")?.code().unwrap_or(-1))
}

fn exit_code(code: i32) -> Result<ExitCode> {
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
