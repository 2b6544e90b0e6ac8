//! containerd, as far as an installer needs it: what it makes of its configuration, a restart, and whether handlers
//! work.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use containerd_client::tonic::{Request, Status, transport::Channel};
use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest, NamespaceMode, NamespaceOption,
    PodSandbox, PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest, RunPodSandboxRequest, StatusRequest,
    StopPodSandboxRequest, VersionRequest, runtime_service_client::RuntimeServiceClient,
};
use tokio::time::{sleep, timeout};

use crate::{Error, Host, distribution::Layout};

/// A call that takes longer has failed. A pod's first start may pull the pause image.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How long a restarted containerd may take to answer, and to know its handlers.
const COMES_WITHIN: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(200);
/// The namespace of the pods that try handlers; its name is told where one is seen.
const NAMESPACE: &str = "lighter-node";

/// A pod that a handler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The handler's name.
    pub handler: String,
    /// Seconds since 1970.
    pub started: u64,
}

/// What an installation asks of containerd. Tests have one of their own.
#[allow(async_fn_in_trait, reason = "one event loop, one thread")]
pub trait Daemon {
    /// Runs a program on its host, to the end.
    fn run(&self, argv: &[&str]) -> Result<Output, Error>;

    /// Major and minor version.
    async fn version(&self) -> Result<(u32, u32), Error>;

    /// What it makes of a configuration file, or of what it has without one; none where no program is found to ask.
    async fn dump(&self, config: Option<&Path>) -> Result<Option<String>, Error>;

    /// Has it read its configuration again, and waits until it answers.
    async fn restart(&self) -> Result<(), Error>;

    /// The handlers that it knows, running as it is.
    async fn handlers(&self) -> Result<Vec<String>, Error>;

    /// Runs a pod by a handler and removes it.
    async fn try_handler(&self, handler: &str) -> Result<(), Error>;

    /// Removes pods by which an interrupted run tried handlers. Nobody else must be trying any.
    async fn sweep(&self) -> Result<(), Error>;

    /// The pods that these handlers run, ended ones included, but for those that try them.
    async fn running(&self, handlers: &[String]) -> Result<Vec<Running>, Error>;
}

/// The node's.
#[derive(Debug)]
pub struct Containerd {
    host: Host,
    layout: Layout,
    /// Words of a shell's that restart it, in place of systemd's.
    restart: Option<String>,
}

impl Containerd {
    /// Of this layout. `restart` is a line for `sh -c` on the host, where it is not systemd that restarts containerd.
    #[must_use]
    pub fn new(host: Host, layout: Layout, restart: Option<String>) -> Self {
        Self { host, layout, restart }
    }

    fn socket(&self) -> PathBuf {
        self.host.path(&self.layout.socket)
    }

    fn silent(&self, why: impl ToString) -> Error {
        Error::Silent { address: self.layout.socket.clone(), why: why.to_string() }
    }

    async fn client(&self) -> Result<RuntimeServiceClient<Channel>, Error> {
        let channel = timeout(ANSWERS_WITHIN, containerd_client::connect(self.socket())).await;
        let channel = channel.map_err(|_| self.silent("it takes no connection"))?;
        Ok(RuntimeServiceClient::new(channel.map_err(|error| self.silent(deepest(&error)))?))
    }

    async fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut RuntimeServiceClient<Channel>) -> Result<T, Status>,
    ) -> Result<T, Error> {
        let mut client = self.client().await?;
        let answered = timeout(ANSWERS_WITHIN, call(&mut client)).await;
        let answered = answered.map_err(|_| self.silent(format!("no answer within {ANSWERS_WITHIN:?}")))?;
        answered.map_err(|status| self.silent(status.message()))
    }

    async fn pods(&self) -> Result<Vec<PodSandbox>, Error> {
        let list = self.call(async |cri| cri.list_pod_sandbox(ListPodSandboxRequest::default()).await).await?;
        Ok(list.into_inner().items)
    }

    /// Stops and removes a pod.
    async fn remove_pod(&self, pod_sandbox_id: String) -> Result<(), Error> {
        let stop = StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        let stopped = self.call(async |cri| cri.stop_pod_sandbox(stop).await).await.map(drop);
        let remove = RemovePodSandboxRequest { pod_sandbox_id };
        let removed = self.call(async |cri| cri.remove_pod_sandbox(remove).await).await.map(drop);
        stopped.and(removed)
    }

    /// containerd's program on the host.
    fn program(&self) -> Option<String> {
        let folders = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"];
        let on_path = folders.iter().map(|folder| format!("{folder}/containerd"));
        let mut candidates = self.layout.programs.iter().map(|path| (*path).to_owned()).chain(on_path);
        candidates.find(|path| self.host.exists(path))
    }

    fn ask(&self, argv: &[&str]) -> Result<Result<String, String>, Error> {
        let output = self.host.run(argv)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            let said = text(&output.stderr);
            Err(if said.is_empty() { output.status.to_string() } else { said })
        })
    }

    /// The unit that runs it.
    fn restart_unit(&self) -> Result<(), Error> {
        // It fails for what is not active, and says what it is all the same.
        let state = |unit: &&'static str| {
            let asked = self.host.run(&["systemctl", "is-active", unit]);
            asked.map(|output| (*unit, String::from_utf8_lossy(&output.stdout).trim().to_owned())).ok()
        };
        let states: Vec<_> = self.layout.units.iter().filter_map(state).collect();
        let unit = unit_of(&states).ok_or(Error::NoRestart)?;
        let restarted = self.ask(&["systemctl", "restart", unit])?;
        restarted.map(drop).map_err(|why| Error::Restart { command: format!("systemctl restart {unit}"), why })
    }
}

impl Daemon for Containerd {
    fn run(&self, argv: &[&str]) -> Result<Output, Error> {
        self.host.run(argv)
    }

    async fn version(&self) -> Result<(u32, u32), Error> {
        let told = match self.call(async |cri| cri.version(VersionRequest::default()).await).await {
            Ok(answer) => answer.into_inner().runtime_version,
            // One that doesn't run can still tell its version.
            Err(error) => match self.program() {
                Some(program) => self.ask(&[&program, "--version"])?.map_err(|why| self.silent(why))?,
                None => return Err(error),
            },
        };
        let version =
            parse_version(&told).ok_or_else(|| self.silent(format!("it says that its version is {told:?}")))?;
        if version < (1, 7) { Err(Error::TooOld(told)) } else { Ok(version) }
    }

    async fn dump(&self, config: Option<&Path>) -> Result<Option<String>, Error> {
        let Some(program) = self.program() else { return Ok(None) };
        let config = config.map(|path| path.to_string_lossy().into_owned());
        let file: Vec<&str> = config.iter().flat_map(|path| ["--config", path.as_str()]).collect();
        // Without a file there is nothing to merge, and 1.7 refuses to.
        let what = if config.is_none() { "default" } else { "dump" };
        let argv = [&[program.as_str()][..], &file, &["config", what]].concat();
        let path = config.as_deref().map_or(&*self.layout.config, Path::new).to_owned();
        self.ask(&argv)?.map(Some).map_err(|why| Error::Broken { path, why })
    }

    async fn restart(&self) -> Result<(), Error> {
        match &self.restart {
            Some(line) => {
                let restarted = self.ask(&["sh", "-c", line])?;
                restarted.map_err(|why| Error::Restart { command: line.clone(), why })?;
            }
            None => self.restart_unit()?,
        }
        let deadline = Instant::now() + COMES_WITHIN;
        loop {
            match self.handlers().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(STEP).await,
            }
        }
    }

    async fn handlers(&self) -> Result<Vec<String>, Error> {
        let status = self.call(async |cri| cri.status(StatusRequest { verbose: true }).await).await?.into_inner();
        let config = status.info.get("config").map(|json| serde_json::from_str::<serde_json::Value>(json));
        let config = config.transpose().map_err(|error| self.silent(format!("its status: {error}")))?;
        let runtimes = config.as_ref().and_then(|config| config.get("containerd")?.get("runtimes")?.as_object());
        let runtimes = runtimes.ok_or_else(|| self.silent("its status has no runtimes; is it containerd?"))?;
        Ok(runtimes.keys().cloned().collect())
    }

    async fn try_handler(&self, handler: &str) -> Result<(), Error> {
        let failed = |error: Error| {
            let why = if let Error::Silent { why, .. } = error { why } else { error.to_string() };
            Error::Handler { handler: handler.to_owned(), why }
        };
        // Of a name of its own: one that an interrupted run left holds that.
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let uid = format!("{handler}-{}", since_1970.as_nanos());
        let namespaces = NamespaceOption {
            // The node's: a network plugin may not be ready, and is not what is tried.
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ..NamespaceOption::default()
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: format!("try-{handler}"),
                uid,
                namespace: NAMESPACE.to_owned(),
                attempt: 0,
            }),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let run = self.call(async |cri| cri.run_pod_sandbox(Request::new(request)).await).await.map_err(failed)?;
        self.remove_pod(run.into_inner().pod_sandbox_id).await.map_err(failed)
    }

    async fn sweep(&self) -> Result<(), Error> {
        for pod in self.pods().await?.into_iter().filter(is_ours) {
            self.remove_pod(pod.id).await?;
        }
        Ok(())
    }

    async fn running(&self, handlers: &[String]) -> Result<Vec<Running>, Error> {
        let seconds = |nanoseconds: i64| u64::try_from(nanoseconds / 1_000_000_000).unwrap_or_default();
        let by_them = |pod: &PodSandbox| handlers.contains(&pod.runtime_handler) && !is_ours(pod);
        let ours = self.pods().await?.into_iter().filter(by_them);
        Ok(ours.map(|pod| Running { handler: pod.runtime_handler, started: seconds(pod.created_at) }).collect())
    }
}

/// Whether a pod is one that tries a handler.
fn is_ours(pod: &PodSandbox) -> bool {
    pod.metadata.as_ref().is_some_and(|metadata| metadata.namespace == NAMESPACE)
}

/// Of the units that it may be, with their states: the one that is active, or else the one that would be, such as one
/// that failed to start with what is put back now. One that nobody has started is somebody else's.
fn unit_of<'a>(units: &[(&'a str, String)]) -> Option<&'a str> {
    let first = |of: &dyn Fn(&str) -> bool| units.iter().find(|(_, state)| of(state)).map(|(unit, _)| *unit);
    first(&|state| state == "active").or_else(|| first(&|state| !matches!(state, "" | "inactive" | "unknown")))
}

/// The first number with a dot: of `v2.1.9` as well as of `containerd github.com/containerd/containerd 1.7.24~ds1 …`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        let mut number = || parts.next()?.parse().ok();
        Some((number()?, number()?))
    })
}

/// The innermost cause, which says most.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_one_that_runs_or_should() {
        let table: [(&[&str], Option<&str>); 7] = [
            (&["active", "inactive"], Some("0")),
            (&["inactive", "active"], Some("1")),
            (&["failed", "active"], Some("1")),
            // Between two attempts of systemd's, or given up.
            (&["activating", "inactive"], Some("0")),
            (&["inactive", "failed"], Some("1")),
            (&["inactive", "unknown"], None),
            (&[""], None),
        ];
        for (states, expected) in table {
            let units: Vec<_> = ["0", "1"].into_iter().zip(states.iter().map(|&state| state.to_owned())).collect();
            assert_eq!(unit_of(&units), expected, "{states:?}");
        }
    }

    #[test]
    fn versions_are_read_from_whatever_tells_them() {
        let table = [
            ("v2.1.9", Some((2, 1))),
            ("1.7.24~ds1", Some((1, 7))),
            ("v2.2.0-k3s1", Some((2, 2))),
            ("containerd github.com/containerd/containerd/v2 2.1.9+unknown ", Some((2, 1))),
            ("containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da", Some((1, 7))),
            ("cri-o", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }
}
