//! From the raw runtime spec to the one validated value that everything deeper sees.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxCpu, LinuxSeccomp, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::{
    Config, Error, Grants, Hooks, Http, Network, Program, annotations::Annotations, docker_init, hooks, native_spec,
    program::Search, sandbox_spec,
};

/// Memory in bytes that is kept back from the guest's linear memory for the runner itself, at most.
const HEADROOM: u64 = 16 << 20;

/// All that a runner needs to build a sandbox and run one guest in it.
///
/// Written by the shim daemon from the bundle, read by the runner from an inherited descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The container's id; a folder name that libcontainer accepts.
    pub id: String,
    /// Where the runner keeps its state: inside the bundle, so that it goes when containerd removes the bundle.
    pub state: PathBuf,
    /// The mounted root filesystem, as the host sees it.
    pub rootfs: PathBuf,
    /// What libcontainer builds: for WebAssembly the bundle's spec without what a guest must not see, for a native program
    /// the whole.
    pub sandbox: Spec,
    /// What is run once that stands. The hooks before that are in `sandbox`.
    pub hooks: Hooks,
    /// The spec's seccomp profile, applied by the seal after the last privileged call. A native program's is in `sandbox`.
    pub seccomp: Option<LinuxSeccomp>,
    /// The spec's AppArmor profile, entered by the seal: a guest is never exec'd, so "on exec" would never apply. A native
    /// program's is in `sandbox`.
    pub apparmor: Option<String>,
    /// Where the container's processes are counted and bounded.
    pub cgroup: Cgroup,
    /// `args[0]`: what to run.
    pub entrypoint: String,
    /// The engine that the container's annotation asks for.
    pub engine: Option<String>,
    /// What the entrypoint is, by its bytes. Where there is none in the root filesystem, what the annotation says.
    pub program: Program,
    /// Where the module is.
    pub module: Source,
    /// What the guest sees.
    pub guest: Guest,
    /// The terminal that the guest's streams are; `None` where they are none.
    pub terminal: Option<Terminal>,
    /// Whether the runner is not root and makes a user namespace first. There is no cgroup then.
    pub user_namespace: bool,
    /// Whether the guest ends with the process that launched it, however that ends.
    pub tethered: bool,
    /// The folder of compiled code.
    pub cache: PathBuf,
    /// Bytes that the cache may hold for each engine.
    pub cache_bytes: u64,
    /// Compilers that may be at work at once while containers wait for them; `None` leaves it to the runner.
    pub compilers: Option<NonZeroU32>,
}

/// A terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminal {
    /// The descriptors that the runner inherits are one.
    Inherited,
    /// The container makes one in its own `/dev/pts`, and its other end is sent to this socket. For native programs, which
    /// look for theirs there.
    Made {
        /// A socket that somebody listens on.
        socket: PathBuf,
    },
}

/// Where a guest's module comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The entrypoint's file in the root filesystem.
    Rootfs,
    /// The entrypoint's file in the root filesystem where that is WebAssembly, else the layer of the container's image
    /// that is, which `lighter-fetch` knows how to get.
    Image(ContainerImage),
    /// A file of the host's. The entrypoint is but a name then.
    File {
        /// Where it is.
        path: PathBuf,
        /// SHA-256 of its bytes, 64 hex digits, where somebody trusted has compared it.
        digest: Option<String>,
    },
}

/// The image that a container was made of, as containerd knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerImage {
    /// The socket of containerd's gRPC API.
    pub address: PathBuf,
    /// Of containerd's, in which the container is.
    pub namespace: String,
    /// The container's id.
    pub container: String,
}

/// What the guest sees of its container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guest {
    /// `args[0]` is the entrypoint.
    pub args: Vec<String>,
    /// Names and values, in the spec's order.
    pub env: Vec<(String, String)>,
    /// An absolute path in the rootfs.
    pub cwd: PathBuf,
    /// Bound on linear memory in bytes, below the cgroup's limit; `None` where there is no limit.
    pub memory: Option<u64>,
    /// CPUs' worth of time that it is granted, rounded up; `None` where there is no limit.
    pub cpus: Option<NonZeroU32>,
    /// What else it may do.
    pub grants: Grants,
    /// How it is served if it is an HTTP handler.
    pub http: Http,
}

/// What the shim knows beside the bundle.
#[derive(Clone, Debug)]
pub struct PlanRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle's folder.
    pub bundle: &'a Path,
    /// Where the rootfs was mounted; `None` where the spec's `root.path` says it.
    pub rootfs: Option<&'a Path>,
    /// Where the module is.
    pub module: Source,
    /// What an entrypoint is that isn't in the root filesystem; `None` lets the annotation for the engine say.
    pub otherwise: Option<Program>,
    /// Whether the runtime options ask for systemd's cgroups.
    pub systemd_cgroup: bool,
    /// The folder of compiled code.
    pub cache: &'a Path,
    /// Bytes that the cache may hold for each engine.
    pub cache_bytes: u64,
    /// Compilers that may be at work at once, where somebody says it.
    pub compilers: Option<NonZeroU32>,
    /// Whether a guest's container may ask to be privileged.
    pub allow_privileged: bool,
}

impl Plan {
    /// The folder inside a bundle that a runner keeps its state in.
    pub const STATE: &'static str = "lighter";

    /// Reads a bundle's `config.json`, once, and turns it into a plan.
    ///
    /// # Errors
    /// The spec can't be read, lacks a part, or asks for what a guest can't be given.
    pub fn read(request: &PlanRequest<'_>) -> Result<Self, Error> {
        let path = request.bundle.join("config.json");
        let spec = Spec::load(&path).map_err(|source| Error::ReadSpec { path, source })?;
        Self::new(spec, request)
    }

    /// The same for another process of the container, in place of its own.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_exec(request: &PlanRequest<'_>, process: Process) -> Result<Self, Error> {
        let path = request.bundle.join("config.json");
        let mut spec = Spec::load(&path).map_err(|source| Error::ReadSpec { path, source })?;
        spec.set_process(Some(process));
        Self::new(spec, request)
    }

    /// Makes the guest's streams a terminal's, or not.
    pub fn set_terminal(&mut self, terminal: Option<Terminal>) {
        // libcontainer wants it to be said twice.
        let made = matches!(terminal, Some(Terminal::Made { .. }));
        if let Some(process) = self.sandbox.process_mut() {
            process.set_terminal(Some(made));
        }
        self.terminal = terminal;
    }

    /// Gives the host's hooks that name no environment this one; each variable is a `NAME=VALUE`.
    pub fn set_hook_env(&mut self, env: &[String]) {
        hooks::inherit(&mut self.sandbox, env);
    }

    /// Where the cgroup of the container `id` is, for clean-up where nothing but the bundle is left.
    ///
    /// # Errors
    /// The spec can't be read.
    pub fn cgroup_of(bundle: &Path, id: &str) -> Result<Cgroup, Error> {
        let path = bundle.join("config.json");
        let spec = Spec::load(&path).map_err(|source| Error::ReadSpec { path, source })?;
        Ok(Cgroup::new(spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()), id, false))
    }

    /// Turns a spec into a plan. The runner's state goes into `request.bundle`, of which nothing is read; of the root
    /// filesystem, the entrypoint's first bytes are.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn new(mut spec: Spec, request: &PlanRequest<'_>) -> Result<Self, Error> {
        let hooks = Hooks::take(&mut spec, request.bundle, request.id);
        let process = spec.process().clone().ok_or(Error::SpecLacks("process"))?;
        let linux = spec.linux().clone().ok_or(Error::SpecLacks("linux section"))?;
        let mut args = process.args().clone().unwrap_or_default();
        let behind_init = docker_init::behind(&args, spec.mounts().as_deref().unwrap_or_default()).map(<[_]>::to_vec);
        let Some(named) = behind_init.as_ref().unwrap_or(&args).first().filter(|a| !a.is_empty()).cloned() else {
            return Err(Error::EntrypointMissing { path: String::new() });
        };
        let cwd = process.cwd().clone();
        if !cwd.is_absolute() {
            return Err(Error::Refused {
                what: format!("working directory {}", cwd.display()),
                why: "it must be an absolute path".to_owned(),
            });
        }
        let limit = linux
            .resources()
            .as_ref()
            .and_then(|r| r.memory().as_ref())
            .and_then(oci_spec::runtime::LinuxMemory::limit);
        let cpus = linux.resources().as_ref().and_then(|r| r.cpu().as_ref()).and_then(cpus);
        let rootfs = match (request.rootfs, spec.root()) {
            (Some(mounted), _) => mounted.to_owned(),
            (None, Some(root)) => request.bundle.join(root.path()),
            (None, None) => return Err(Error::SpecLacks("root")),
        };
        let annotations: HashMap<String, String> = spec.annotations().clone().unwrap_or_default();
        let annotations = Annotations::new(&annotations)?;
        let cgroup = Cgroup::new(linux.cgroups_path().clone(), request.id, request.systemd_cgroup);
        let engine = annotations.get("engine").map(str::to_owned);
        let env = split_env(process.env().as_deref().unwrap_or_default());
        let program = match &request.module {
            Source::File { .. } => Program::Wasm,
            Source::Rootfs | Source::Image(_) => {
                let by_engine =
                    if engine.as_deref() == Some(Program::NATIVE) { Program::Native } else { Program::Wasm };
                let otherwise = request.otherwise.unwrap_or(by_engine);
                let search = Search {
                    rootfs: &rootfs,
                    mounts: spec.mounts().as_deref().unwrap_or_default(),
                    entrypoint: &named,
                    cwd: &cwd,
                    path_env: path_of(&env),
                };
                Program::find(&search, otherwise)
            }
        };
        if let (Program::Wasm, Some(behind)) = (program, behind_init) {
            docker_init::remove(&mut spec);
            args = behind;
        }
        let entrypoint = args.first().cloned().unwrap_or_default();
        if let (Program::Wasm, Some(hook)) = (program, hooks.start_container.first()) {
            return Err(Error::Refused {
                what: format!("the startContainer hook {}", hook.path().display()),
                why: "it is a native program of the container's own root filesystem, and those have no place beside a \
                      guest; make it a createContainer hook, which is the host's"
                    .to_owned(),
            });
        }
        let (sandbox, seccomp, apparmor, grants, http) = match program {
            Program::Wasm if !request.allow_privileged && sandbox_spec::is_privileged(&spec) => {
                return Err(Error::Refused {
                    what: "the rights of a privileged container".to_owned(),
                    why: format!(
                        "its seal takes all of them away; run it unprivileged, or have the node allow containers that \
                         believe otherwise: allow-privileged = true in {}",
                        Config::NODE
                    ),
                });
            }
            Program::Wasm => (
                sandbox_spec::derive(spec, &rootfs, &cgroup.path)?,
                linux.seccomp().clone(),
                process.apparmor_profile().clone().filter(|p| !p.is_empty()),
                Grants::from_annotations(annotations)?,
                Http::from_annotations(annotations)?,
            ),
            // What an engine grants has no meaning for a program that the kernel runs: its spec says all.
            Program::Native => (
                native_spec::derive(spec, &rootfs, &cgroup.path)?,
                None,
                None,
                Grants { network: Network::All },
                Http::default(),
            ),
        };
        let mut plan = Self {
            id: request.id.to_owned(),
            state: request.bundle.join(Self::STATE),
            seccomp,
            apparmor,
            hooks,
            sandbox,
            cgroup,
            rootfs,
            entrypoint,
            engine,
            program,
            module: request.module.clone(),
            guest: Guest { args, env, cwd, memory: limit.and_then(Guest::memory_within), cpus, grants, http },
            terminal: None,
            user_namespace: false,
            tethered: false,
            cache: request.cache.to_owned(),
            cache_bytes: request.cache_bytes,
            compilers: request.compilers,
        };
        plan.set_terminal(None);
        Ok(plan)
    }

    /// The guest's `PATH`, in which a bare entrypoint is looked for.
    #[must_use]
    pub fn path_env(&self) -> Option<&str> {
        path_of(&self.guest.env)
    }
}

fn path_of(env: &[(String, String)]) -> Option<&str> {
    env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str())
}

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// A path below the hierarchies' roots, or systemd's `slice:prefix:name`.
    pub path: PathBuf,
    /// Whether systemd manages it.
    pub systemd: bool,
}

impl Cgroup {
    /// `slice:prefix:name` is the form in which systemd's cgroups are named.
    /// Source: runtime-spec `config-linux.md#cgroups-path`, runc's `systemd` driver.
    fn new(path: Option<PathBuf>, id: &str, asked_for_systemd: bool) -> Self {
        let path = path.unwrap_or_else(|| Path::new("/lighter").join(id));
        let systemd = asked_for_systemd || path.to_str().is_some_and(|p| p.split(':').count() == 3);
        Self { path, systemd }
    }
}

impl Guest {
    /// The part of a container's memory limit that linear memory may take: a sixteenth of a gigabyte-sized limit is
    /// nothing, a quarter of a small one is what the runner needs. Zero and less are no limit.
    #[must_use]
    pub fn memory_within(limit: i64) -> Option<u64> {
        let limit = u64::try_from(limit).ok().filter(|&limit| limit > 0)?;
        Some(limit - HEADROOM.min(limit / 4))
    }
}

/// What a quota comes to. Source: the kernel's `Documentation/scheduler/sched-bwc.rst`; without a period, its default of
/// 100 ms counts.
fn cpus(cpu: &LinuxCpu) -> Option<NonZeroU32> {
    let quota = cpu.quota().and_then(|quota| u64::try_from(quota).ok()).filter(|&quota| quota > 0)?;
    let period = cpu.period().filter(|&period| period > 0).unwrap_or(100_000);
    NonZeroU32::new(u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX))
}

/// `NAME=VALUE` to pairs; the last of a name wins, as it does in a shell.
fn split_env(env: &[String]) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::with_capacity(env.len());
    for item in env {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        match pairs.iter_mut().find(|(n, _)| n == name) {
            Some(pair) => value.clone_into(&mut pair.1),
            None => pairs.push((name.to_owned(), value.to_owned())),
        }
    }
    pairs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, Error> {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("config.json"), json).unwrap();
        Plan::read(&request(bundle.path()))
    }

    fn request(bundle: &Path) -> PlanRequest<'_> {
        PlanRequest {
            id: "c1",
            bundle,
            rootfs: None,
            module: Source::Rootfs,
            otherwise: None,
            systemd_cgroup: false,
            cache: Path::new("/cache"),
            cache_bytes: 1,
            compilers: None,
            allow_privileged: false,
        }
    }

    /// A spec as containerd writes it, with a `process`, `linux` and `mounts` of the test's.
    fn spec(process: &str, linux: &str, mounts: &str) -> String {
        format!(
            r#"{{"ociVersion":"1.1.0","root":{{"path":"rootfs"}},
                "process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"args":["/a.wasm","x"]{process}}},
                "mounts":[{mounts}],
                "linux":{{"cgroupsPath":"/default/c1","namespaces":[{{"type":"mount"}},{{"type":"pid"}}]{linux}}}}}"#
        )
    }

    const PRIVILEGED: &str =
        r#","capabilities":{"bounding":["CAP_SYS_ADMIN","CAP_SYS_MODULE","CAP_SYS_PTRACE","CAP_NET_ADMIN"]}"#;

    #[test]
    fn many_capabilities_alone_are_no_privilege() {
        plan(&spec(PRIVILEGED, r#","maskedPaths":["/proc/kcore"]"#, "")).unwrap();
        plan(&spec(r#","capabilities":{"bounding":["CAP_SYS_ADMIN"]}"#, "", "")).unwrap();
    }

    #[test]
    fn the_guest_sees_args_env_cwd_and_a_bound_below_the_limit() {
        let plan = plan(&spec(
            r#","env":["A=1","B=x=y","A=2","PATH=/bin"]"#,
            r#","resources":{"memory":{"limit":134217728}}"#,
            "",
        ))
        .unwrap();
        assert_eq!(plan.entrypoint, "/a.wasm");
        assert_eq!(plan.guest.args, ["/a.wasm", "x"]);
        let env: Vec<_> = plan.guest.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(env, ["A=2", "B=x=y", "PATH=/bin"]);
        assert_eq!(plan.path_env(), Some("/bin"));
        assert_eq!(plan.guest.memory, Some((128 - 16) << 20));
        assert_eq!(Guest::memory_within(8 << 20), Some(6 << 20));
        assert_eq!([Guest::memory_within(0), Guest::memory_within(-1)], [None, None]);
        assert_eq!(plan.cgroup, Cgroup { path: "/default/c1".into(), systemd: false });
    }

    #[test]
    fn nonsense_is_an_error_that_names_it() {
        let table = [
            ("{", "read runtime spec"),
            (r#"{"ociVersion":"1.1.0"}"#, "no process"),
            (&spec(r#","args":[]"#, "", "").replace(r#""args":["/a.wasm","x"],"#, ""), "entrypoint"),
            (
                &spec("", "", "").replace(r#""linux""#, r#""annotations":{"run.lighter.network":"nome"},"linux""#),
                "takes \"all\" or \"none\"",
            ),
            (
                &spec("", "", "").replace(r#""linux""#, r#""annotations":{"run.lighter.netwrok":"none"},"linux""#),
                "did you mean run.lighter.network?",
            ),
            (&spec("", "", "").replace(r#"{"type":"mount"},"#, ""), "mount namespace"),
            (
                &spec("", "", "").replace(r#""linux""#, r#""hooks":{"startContainer":[{"path":"/h"}]},"linux""#),
                "the startContainer hook /h",
            ),
            (
                &spec("", "", r#"{"destination":"/p","type":"bind","source":"/proc","options":["rbind"]}"#),
                "volume /proc",
            ),
            (&spec(PRIVILEGED, "", ""), "allow-privileged = true"),
        ];
        for (json, expected) in table {
            let error = plan(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}\n{error}");
        }
    }

    #[test]
    fn the_sandbox_has_no_kernel_filesystem_and_no_capability_but_what_the_seal_needs() {
        let plan = plan(&spec(
            r#","apparmorProfile":"docker-default","capabilities":{"bounding":["CAP_SYS_PTRACE"]}"#,
            r#","maskedPaths":["/proc/kcore"],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}"#,
            r#"{"destination":"/proc","type":"proc","source":"proc"},
               {"destination":"/sys","type":"sysfs","source":"sysfs"},
               {"destination":"/dev","type":"tmpfs","source":"tmpfs"},
               {"destination":"/data","type":"bind","source":"/tmp","options":["rbind","ro"]}"#,
        ))
        .unwrap();
        let kept: Vec<_> = plan.sandbox.mounts().as_ref().unwrap().iter().map(|m| m.destination().clone()).collect();
        assert_eq!(kept, [Path::new("/proc"), Path::new("/dev"), Path::new("/data")]);
        let process = plan.sandbox.process().as_ref().unwrap();
        assert_eq!(process.apparmor_profile(), &None);
        assert_eq!(plan.apparmor.as_deref(), Some("docker-default"));
        let linux = plan.sandbox.linux().as_ref().unwrap();
        assert_eq!(linux.seccomp(), &None);
        assert_eq!(linux.masked_paths(), &None);
        assert!(plan.seccomp.is_some());
        assert!(Cgroup::new(Some("system.slice:docker:abc".into()), "abc", false).systemd);
    }

    #[test]
    fn a_device_has_no_mode_that_its_rules_deny() {
        let mode = |rules: &str| {
            let plan = plan(&spec(
                "",
                &format!(
                    r#","devices":[{{"type":"b","path":"/dev/xd","major":7,"minor":1,"fileMode":432}}],
                       "resources":{{"devices":[{{"allow":false,"access":"rwm"}}{rules}]}}"#
                ),
                "",
            ))
            .unwrap();
            plan.sandbox.linux().as_ref().unwrap().devices().as_ref().unwrap()[0].file_mode().unwrap()
        };
        assert_eq!(mode(""), 0);
        assert_eq!(mode(r#",{"allow":true,"type":"b","major":7,"minor":1,"access":"r"}"#), 0o440);
        assert_eq!(mode(r#",{"allow":true,"type":"b","major":7,"minor":1,"access":"rwm"}"#), 0o660);
        assert_eq!(mode(r#",{"allow":true,"type":"b","major":8,"minor":1,"access":"rwm"}"#), 0, "another's rule");
        assert_eq!(mode(r#",{"allow":true,"access":"rwm"}"#), 0o660, "privileged");
    }

    #[test]
    fn dockers_init_comes_before_native_programs_only() {
        let planned = |file: &[u8]| {
            let bundle = tempfile::tempdir().unwrap();
            std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
            std::fs::write(bundle.path().join("rootfs/a.wasm"), file).unwrap();
            let mount = r#"{"destination":"/sbin/docker-init","type":"bind","source":"/i","options":["bind"]}"#;
            let args = r#"["/sbin/docker-init","--","/a.wasm","x"]"#;
            let json = spec("", "", mount).replace(r#"["/a.wasm","x"]"#, args);
            std::fs::write(bundle.path().join("config.json"), json).unwrap();
            let plan = Plan::read(&request(bundle.path())).unwrap();
            (plan.entrypoint, plan.guest.args.len(), plan.sandbox.mounts().as_ref().unwrap().len())
        };
        // The mounts of a guest's sandbox have a /proc.
        assert_eq!(planned(b"\0asm\x01\0\0\0"), ("/a.wasm".to_owned(), 2, 1));
        assert_eq!(planned(b"\x7fELF\x02\x01\x01\0"), ("/sbin/docker-init".to_owned(), 4, 1));
    }

    #[test]
    fn a_plan_survives_the_way_to_the_runner() {
        let plan = plan(&spec(r#","env":["A=1"]"#, "", "")).unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        let back: Plan = serde_json::from_str(&json).unwrap();
        assert_eq!(back.sandbox, plan.sandbox);
        assert_eq!(format!("{:?}", back.guest), format!("{:?}", plan.guest));
    }
}
