//! `lighter run`: a module in a sandbox, without a daemon.

use std::{env, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use lighter_oci::{ANNOTATION_PREFIX, quantity};

use crate::{
    output::Output,
    run::{self, End, Target, User, Volume},
};

/// What is given if the guest did not start.
const NOT_STARTED: u8 = 125;

/// Run a module or an image in a sandbox, here and now
///
/// No daemon, and no root where the system allows user namespaces. The guest gets its arguments, the environment given here,
/// and this command's standard streams: no files but the image's and those of --dir, no network but what --port or --network
/// give. Nothing of it is left when it ends. An image that isn't in the local store is pulled.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lighter run hello.wasm
  lighter run ghcr.io/me/hello:1 -- --name world
  lighter run --env LOG=debug --env HOME --dir .:/work:ro --workdir /work tool.wasm -- input.txt
  lighter run --port 127.0.0.1:8080 --memory 64MiB --timeout 30s server.wasm
  lighter run handler.wasm                                    a wasi:http handler, on http://127.0.0.1:8080
  lighter run --port 80 --annotation run.lighter.http.reuse=true handler.wasm

A component that exports wasi:http/incoming-handler, or handler of WASI 0.3, is served: on the first --port, or else on port 8080
of this machine alone. It reaches out only with --network host. Ctrl-C lets it finish what it has begun.

Exit codes: the guest's own; 128+n after signal n; 134 after a trap, with the backtrace on standard error; 124 if its time
was over; 125 if it could not start.

Who the guest is, on the host: without root, you, in a user namespace. With root: whom --user names, else whom the image
names, else the owner of what --dir lets it write to (root has no capability then), else nobody (65534). Its copy of the image's
files is its own.

Limits: with root, --memory is a cgroup's limit for guest and engine together. Without root there is no cgroup, and only the
guest's linear memory is bounded, by what would be left for it.")]
pub(crate) struct Args {
    /// A .wasm file, or an image: [REGISTRY/]NAME[:TAG][@DIGEST]
    #[arg(value_name = "FILE|REF", value_parser = Target::parse)]
    target: Target,
    /// The guest's arguments; of an image, instead of its own
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
    /// An environment variable; without a value, the caller's own. May be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<Variable>,
    /// A folder or file of the host's, and where the guest finds it. May be repeated
    #[arg(short, long = "dir", value_name = "HOST:GUEST[:ro]")]
    volumes: Vec<Volume>,
    /// The folder that the guest starts in
    #[arg(short, long, value_name = "PATH", value_parser = absolute)]
    workdir: Option<PathBuf>,
    /// Run this file of the image, instead of its entrypoint
    #[arg(long, value_name = "PATH")]
    entrypoint: Option<String>,
    /// Who the guest is on the host; takes root
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<User>,
    /// Let the guest listen on this TCP port of the host's, and accept what connects. May be repeated
    #[arg(short, long = "port", value_name = "[IP:]PORT", value_parser = run::port)]
    ports: Vec<SocketAddr>,
    /// The guest's network: none, or all of the host's
    #[arg(long, value_enum, default_value = "none", conflicts_with = "ports")]
    network: Network,
    /// Don't let the guest change its copy of the image's files
    #[arg(long)]
    read_only: bool,
    /// Most memory it may take
    #[arg(short, long, value_name = "SIZE", value_parser = quantity::bytes)]
    memory: Option<u64>,
    /// End the guest after this time
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    timeout: Option<Duration>,
    /// Run it on this engine; without it, on the one that /etc/lighter/config.toml names, or Wasmtime
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// What a container would be told by an annotation, such as run.lighter.http.reuse=true. May be repeated
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    None,
    Host,
}

/// `NAME=VALUE`, or nothing where the caller has no variable of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable(Option<String>);

impl Args {
    pub(crate) async fn run(self, output: &Output) -> anyhow::Result<ExitCode> {
        let request = run::Request {
            target: self.target,
            args: self.args,
            env: self.env.into_iter().filter_map(|variable| variable.0).collect(),
            volumes: self.volumes,
            workdir: self.workdir,
            entrypoint: self.entrypoint,
            user: self.user,
            host_network: self.network == Network::Host,
            ports: self.ports,
            read_only: self.read_only,
            engine: self.engine,
            annotations: self.annotations.into_iter().collect(),
            memory: self.memory,
            timeout: self.timeout,
        };
        let timeout = request.timeout;
        match run::run(request, output).await {
            Ok(end) => {
                if let (End::TimedOut, Some(time)) = (&end, timeout) {
                    output.note(&format!("lighter: ended the guest after {time:?}, as --timeout asks"));
                }
                Ok(end.code())
            }
            Err(error) => {
                output.failed(&error);
                Ok(NOT_STARTED.into())
            }
        }
    }
}

fn variable(text: &str) -> Result<Variable, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() || text.contains('\0') {
        return Err(format!("{text:?} is not NAME=VALUE or NAME"));
    }
    if text.contains('=') {
        return Ok(Variable(Some(text.to_owned())));
    }
    match env::var(name) {
        Ok(value) => Ok(Variable(Some(format!("{name}={value}")))),
        Err(env::VarError::NotPresent) => Ok(Variable(None)),
        Err(env::VarError::NotUnicode(_)) => Err(format!("the value of {name} is not UTF-8")),
    }
}

fn annotation(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    // Another's would have no effect, and is a typing mistake.
    if !name.starts_with(ANNOTATION_PREFIX) {
        return Err(format!("{name:?} does not start with {ANNOTATION_PREFIX}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err(format!("{text:?} is not an absolute path, such as /work")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        assert_eq!(variable("A=b=c"), Ok(Variable(Some("A=b=c".to_owned()))));
        assert_eq!(variable("A="), Ok(Variable(Some("A=".to_owned()))));
        assert_eq!(variable("LIGHTER_TEST_NOT_THERE"), Ok(Variable(None)));
        assert_eq!(variable("PATH"), Ok(Variable(Some(format!("PATH={}", env::var("PATH").unwrap())))));
        assert!(variable("=x").is_err() && variable("").is_err());
    }
}
