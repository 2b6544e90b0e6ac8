//! The command line of a runner. People meet it only through `--version` and `--help`.

use std::{
    env, io,
    os::fd::{AsFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    process::ExitCode,
};

use lighter_oci::{Module, Plan};
use lighter_runtime_api::{
    About, Backend, COMMIT, Identity, Isolation, MemoryBound,
    protocol::{ExecPlan, FD_BOUND, FD_STATUS, FD_STDERR, FD_STDIN, FD_STDOUT, Status},
};
use nix::sys::signal::Signal;

use crate::{
    Error, background,
    compile::{self, Target},
    create::{Inherited, Stdio, create},
    diagnostics, hooks,
    join::join,
    refusal, signals,
    status::StatusStream,
};

/// Runs a runner with this engine and returns its exit code.
#[must_use]
pub fn main<B: Backend>(backend: B) -> ExitCode {
    let identity = backend.identity();
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["create"] => run_for_shim(&identity, |inherited, status, report| {
            let mut plan: Plan = serde_json::from_reader(io::stdin().lock()).map_err(Error::ReadPlan)?;
            hooks::redirect(&mut plan.sandbox, &plan.hooks.bundle, &plan.rootfs);
            report.send(&create(backend, plan, inherited, status)?);
            Ok(())
        }),
        ["exec"] => run_for_shim(&identity, |inherited, status, _| {
            let plan: ExecPlan = serde_json::from_reader(io::stdin().lock()).map_err(Error::ReadPlan)?;
            join(backend, plan, inherited, status)
        }),
        [hooks::ACTION, ref hook @ ..] => hooks::become_hook(hook),
        ["compile", ref options @ ..] => run_compile(&backend, options),
        ["about"] => {
            let about = About {
                name: identity.name.to_owned(),
                version: identity.version.to_owned(),
                compiler: identity.compiler.map(|compiler| compiler.program.to_owned()),
                supports: backend.supports(),
            };
            println!("{}", serde_json::to_string_pretty(&about).unwrap_or_default());
            ExitCode::SUCCESS
        }
        ["--version" | "-V"] => {
            println!(
                "lighter-{} {} ({}), {} {}",
                identity.name,
                env!("CARGO_PKG_VERSION"),
                COMMIT,
                identity.name,
                identity.version
            );
            ExitCode::SUCCESS
        }
        ["--help" | "-h"] => {
            println!("{}", help(&identity, backend.isolation()));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "lighter-{}: expected `create`, `exec`, `compile`, `about`, `--version` or `--help`",
                identity.name
            );
            ExitCode::from(2)
        }
    }
}

/// What `--help` prints.
fn help(Identity { name, version, compiler }: &Identity, isolation: Isolation) -> String {
    let (runs, platform) = match isolation {
        Isolation::Sealed => (format!("WebAssembly container on {name} {version}"), " --platform wasi/wasm"),
        Isolation::Own => (format!("container of a native program, by libcontainer {version}"), ""),
    };
    let mut help = format!(
        "Runs one {runs}.\n\n\
         The shim starts it as `lighter-{name} create`, or `exec` for another process of the container, with the\n\
         plan on standard input and the process's streams on descriptors {FD_STATUS} to {FD_BOUND}. To run an image, use\n\
         the shim:\n\n  \
         docker run --runtime io.containerd.lighter.v1{platform} IMAGE\n  \
         ctr run --rm --runtime io.containerd.lighter.v1{platform} IMAGE NAME\n\n\
         `lighter-{name} about` prints what the engine can run."
    );
    if compiler.is_some() {
        help += " `compile --cache FOLDER --cache-bytes N [--compilers N] [--background]\n\
                 < MODULE` fills the cache with the module's code, and prints its digest and whether it had to be\n\
                 made, as JSON.";
    }
    help
}

/// `lighter compile` and the runner itself start this.
fn run_compile<B: Backend>(backend: &B, options: &[&str]) -> ExitCode {
    let identity = backend.identity();
    let filled = (|| {
        let Some(compiler) = &identity.compiler else {
            return Err(Error::Usage("this engine interprets modules: there is nothing to compile"));
        };
        let target = compile_options(options).ok_or(Error::Usage("wrong options of `compile`; see --help"))?;
        if target.in_background {
            background::step_back().map_err(Error::StepBack)?;
        }
        let module = io::stdin().as_fd().try_clone_to_owned();
        let module = module.map_err(|source| Error::ReadModule { path: "standard input".into(), source })?;
        let module = Module::of_file(module.into(), "standard input", None)?;
        compile::fill(compiler, &target, module)
    })();
    match filled {
        Ok((digest, made)) => {
            println!("{}", serde_json::json!({ "digest": digest, "made": made }));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lighter-{}: {error}", identity.name);
            if matches!(error, Error::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn compile_options<'a>(mut options: &'a [&'a str]) -> Option<Target<'a>> {
    let (mut cache, mut bytes, mut compilers, mut in_background) = (None, None, None, false);
    loop {
        options = match options {
            [] => return Some(Target { cache: cache?, cache_bytes: bytes?, compilers, in_background }),
            ["--cache", folder, rest @ ..] => {
                cache = Some(Path::new(*folder));
                rest
            }
            ["--cache-bytes", number, rest @ ..] => {
                bytes = Some(number.parse().ok()?);
                rest
            }
            ["--compilers", number, rest @ ..] => {
                compilers = Some(number.parse().ok()?);
                rest
            }
            ["--background", rest @ ..] => {
                in_background = true;
                rest
            }
            _ => return None,
        };
    }
}

/// Makes a process of a container's, and tells the shim of it.
fn run_for_shim(
    identity: &Identity,
    make: impl FnOnce(Inherited, StatusStream, &StatusStream) -> Result<(), Error>,
) -> ExitCode {
    // A daemon that dies takes its unfinished creations with it.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let Some((status, report, inherited)) = inherited() else {
        eprintln!("lighter-{}: `create` and `exec` are for the shim; see --help", identity.name);
        return ExitCode::from(2);
    };
    let created = (|| {
        signals::install().map_err(|e| Error::Seal { operation: "install signal handlers", why: e.to_string() })?;
        diagnostics::install().map_err(|e| Error::Seal { operation: "keep standard error", why: e.to_string() })?;
        make(inherited, status, &report)
    })();
    match created {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report.send(&Status::Failed { message: refusal::message(&error, identity.name) });
            ExitCode::FAILURE
        }
    }
}

/// The descriptors of [`lighter_runtime_api::protocol`]; the status stream twice, for this process and for the init.
/// `None` where somebody else than the shim started us.
fn inherited() -> Option<(StatusStream, StatusStream, Inherited)> {
    let status = StatusStream::new(take(FD_STATUS)?);
    let stdio = Stdio { stdin: take(FD_STDIN)?, stdout: take(FD_STDOUT)?, stderr: take(FD_STDERR)? };
    // Under its number there may be what a shell left open, and no such page.
    let memory = take(FD_BOUND).and_then(|page| MemoryBound::shared(page).ok());
    // Only now: it may get a number that is free.
    let report = status.try_clone().ok()?;
    Some((status, report, Inherited { stdio, memory }))
}

/// Takes ownership of an inherited descriptor, if it is open.
#[allow(unsafe_code)]
fn take(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: borrowed for one fcntl, which fails with EBADF where nothing is open under this number.
    let probe = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    nix::fcntl::fcntl(probe, nix::fcntl::FcntlArg::F_GETFD).ok()?;
    // Neither hooks nor compilers are to have it.
    nix::fcntl::fcntl(probe, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, was inherited under its number by the protocol, and is taken once, before anything else in
    // this process opens descriptors.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
