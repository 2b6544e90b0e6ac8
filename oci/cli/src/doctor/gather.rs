//! Looks at the machine. Whatever can't be read is a fact like any other: nothing in here fails.

use std::{
    collections::{HashSet, VecDeque},
    env,
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::io::AsyncReadExt;

use super::{
    config,
    containerd::SHIM,
    facts::{
        Cache, CacheFolder, Cgroup, ConfigFile, Containerd, Docker, Engines, Facts, Host, Program, Programs, Selinux,
        UserNamespaces,
    },
    version::Version,
};
use crate::engines;

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
/// Where k3s and rke2 render containerd's configuration.
const RANCHER: &[&str] = &["/var/lib/rancher/k3s/agent/etc/containerd", "/var/lib/rancher/rke2/agent/etc/containerd"];
/// What systemd gives services. Source: systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Processes that are or hold a kubelet.
const KUBELETS: &[&str] = &["kubelet", "k3s-server", "k3s-agent", "rke2", "k0s", "microk8s"];

/// Bytes of a file or a program's output that are looked at.
const MOST: u64 = 1 << 20;
/// Files of containerd's configuration that are read, and imports that one may have.
const MOST_FILES: usize = 64;
/// Folders' entries that a pattern is held against.
const MOST_ENTRIES: usize = 4096;
/// A program that takes longer to tell its version is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gathers everything.
pub(crate) async fn gather() -> Facts {
    let processes = processes();
    let rancher = RANCHER.iter().map(Path::new).find(|folder| folder.is_dir()).map(Path::to_owned);
    let (containerds, config) = containerds(&processes).await;
    let main = rancher.as_ref().map(|folder| folder.join("config.toml")).or(config);
    let configs = configs(&main.unwrap_or_else(|| CONTAINERD_CONFIG.into()));
    Facts {
        programs: programs().await,
        engines: engines().await,
        containerds,
        docker: docker(&processes).await,
        kubernetes: rancher.is_some() || processes.iter().any(|process| KUBELETS.contains(&&*process.name)),
        rancher,
        shims: shims(&configs),
        dead: dead(&configs),
        configs,
        host: host(),
        cache: cache(Path::new(lighter_oci::Cache::NODE)),
    }
}

/// A process of root's or our own that is not known to be in another mount namespace. A process in a container may call
/// itself containerd, and its program is the image's: it must not be run, nor taken for this machine's.
struct Process {
    pid: u32,
    name: String,
    /// Whether it is in our mount namespace; who isn't root can't tell of root's processes.
    ours: bool,
    arguments: Vec<String>,
}

fn processes() -> Vec<Process> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let (ours, user) = (namespace("self"), nix::unistd::geteuid().as_raw());
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let mut processes: Vec<_> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let owner = entry.metadata().ok()?.uid();
            let theirs = namespace(&pid.to_string());
            let is_ours = theirs.is_some() && theirs == ours;
            let may_be = (owner == 0 || owner == user) && (is_ours || (user != 0 && theirs.is_none()));
            let name = read(Path::new(&format!("/proc/{pid}/comm"))).ok()?.trim().to_owned();
            let arguments = read(Path::new(&format!("/proc/{pid}/cmdline"))).ok()?;
            let arguments = arguments.split_terminator('\0').map(str::to_owned).collect();
            may_be.then_some(Process { pid, name, ours: is_ours, arguments })
        })
        .collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

async fn programs() -> Programs {
    const NAMES: &[(&str, &str)] = &[
        (SHIM, "the shim"),
        ("lighter-wasmtime", "the runner"),
        ("lighter-compile", "the compiler"),
        ("lighter-fetch", "which reads images from containerd"),
    ];
    const OPTIONAL: &[(&str, &str)] = &[
        ("lighter-wasmedge", "WasmEdge's runner"),
        ("lighter-compile-wasmedge", "WasmEdge's compiler"),
        ("lighter-wamr", "WAMR's runner"),
        ("lighter-native", "which runs native programs"),
    ];
    let folder = env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let mut found = Vec::new();
    for (name, purpose) in NAMES {
        let path = folder.join(name);
        let there = path.is_file();
        let told = if there { output(&path, &["--version"]).await } else { None };
        found.push(Program { name, purpose, there, version: told.and_then(|told| build_of(&told)) });
    }
    // Those that not every node has. One that can't be started tells no version; that is another finding.
    for (name, purpose) in OPTIONAL {
        let told = output(&folder.join(name), &["--version"]).await;
        if let Some(version) = told.and_then(|told| build_of(&told)) {
            found.push(Program { name, purpose, there: true, version: Some(version) });
        }
    }
    let version = format!("{} ({})", env!("CARGO_PKG_VERSION"), lighter_runtime_api::COMMIT);
    Programs { folder, version, found }
}

async fn engines() -> Engines {
    let default = engines::choose(None, None).map_err(|error| format!("{error:#}"));
    let installed = engines::installed(default.as_ref().ok()).await;
    Engines { default, installed }
}

/// `0.1.0 (8c980db2444b)` of `lighter-wasmtime 0.1.0 (8c980db2444b), wasmtime 48.0.8`.
fn build_of(told: &str) -> Option<String> {
    let (_, version) = told.lines().next()?.split_once(' ')?;
    let build = version.split(',').next()?.trim();
    (!build.is_empty()).then(|| build.to_owned())
}

/// The containerds, and the configuration that one of them was started with.
async fn containerds(processes: &[Process]) -> (Vec<Containerd>, Option<PathBuf>) {
    let mut found = Vec::new();
    let mut config = None;
    for process in processes.iter().filter(|process| process.name == "containerd") {
        config = config.or(option(&process.arguments, &["-c", "--config"]).map(PathBuf::from));
        let executable = if process.ours { fs::read_link(format!("/proc/{}/exe", process.pid)).ok() } else { None };
        // For who isn't root, the usual one is as good a guess as any.
        let Some(executable) = executable.or_else(|| on_path("containerd")) else { continue };
        let path = environment(process.pid, "PATH");
        found.push(containerd(executable, Some(process.pid), path).await);
    }
    if found.is_empty()
        && let Some(executable) = on_path("containerd")
    {
        found.push(containerd(executable, None, None).await);
    }
    (found, config)
}

async fn containerd(executable: PathBuf, pid: Option<u32>, path: Option<String>) -> Containerd {
    let path_known = path.is_some();
    let mut folders: Vec<PathBuf> = env::split_paths(path.as_deref().unwrap_or(SERVICE_PATH)).collect();
    folders.extend(executable.parent().filter(|own| !folders.iter().any(|known| known == own)).map(Path::to_owned));
    let shim = folders.iter().map(|folder| folder.join(SHIM)).find(|shim| is_executable(shim));
    Containerd {
        version: output(&executable, &["--version"]).await.and_then(|told| Version::find(&told)),
        executable,
        pid,
        path_known,
        shim: shim.map(|shim| shim.canonicalize().unwrap_or(shim)),
        folders,
    }
}

async fn docker(processes: &[Process]) -> Option<Docker> {
    let daemon = on_path("dockerd");
    if daemon.is_none() && !processes.iter().any(|process| process.ours && process.name == "dockerd") {
        return None;
    }
    let info = match on_path("docker") {
        Some(client) => output(&client, &["info", "--format", "{{json .}}"]).await,
        None => None,
    };
    let info: Option<serde_json::Value> = info.and_then(|info| serde_json::from_str(&info).ok());
    // A client without a daemon answers too, with an empty version.
    let info = info.filter(|info| info["ServerVersion"].as_str().is_some_and(|version| !version.is_empty()));
    let mut version = info.as_ref().and_then(|info| Version::find(info["ServerVersion"].as_str()?));
    if let (None, Some(daemon)) = (version, daemon) {
        version = output(&daemon, &["--version"]).await.and_then(|told| Version::find(&told));
    }
    let config = match read(Path::new(DAEMON_JSON)) {
        Ok(text) => Some(serde_json::from_str(&text).map_err(|error| error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(error.to_string())),
    };
    Some(Docker { version, config, containerd_store: info.as_ref().map(keeps_images_in_containerd) })
}

/// What `docker info` tells of the storage driver: pairs of names and values.
fn keeps_images_in_containerd(info: &serde_json::Value) -> bool {
    let pairs = info["DriverStatus"].as_array();
    pairs.is_some_and(|pairs| {
        pairs.iter().any(|pair| pair[0] == "driver-type" && pair[1] == "io.containerd.snapshotter.v1")
    })
}

/// The main file and what is imported, in containerd's order. Where there is no main file, containerd reads none at all.
fn configs(main: &Path) -> Vec<ConfigFile> {
    let mut files: Vec<ConfigFile> = Vec::new();
    let mut pending: VecDeque<_> = main.exists().then(|| main.to_owned()).into_iter().collect();
    let mut seen = HashSet::new();
    while let Some(path) = pending.pop_front() {
        // Files may import each other.
        if files.len() == MOST_FILES || !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            continue;
        }
        let parse = |text: String| text.parse().map_err(|error: toml::de::Error| error.message().to_owned());
        let content: Result<toml::Table, _> = read(&path).map_err(|error| error.to_string()).and_then(parse);
        let imports = content.as_ref().ok().and_then(|table| table.get("imports")?.as_array());
        let imports = imports.into_iter().flatten().filter_map(toml::Value::as_str).take(MOST_FILES);
        pending.extend(imports.flat_map(|import| imported(&path, import)));
        pending.truncate(MOST_FILES);
        files.push(ConfigFile { path, content });
    }
    files
}

/// What a value of `imports` names: a file, which has to be there, or those that match a pattern.
/// Source: containerd `cmd/containerd/server/config/config.go`, `resolveImports`.
fn imported(file: &Path, import: &str) -> Vec<PathBuf> {
    let path = file.parent().unwrap_or(Path::new("/")).join(import);
    if !import.contains('*') {
        return vec![path];
    }
    let mut found = vec![PathBuf::new()];
    for part in &path {
        let Some(pattern) = part.to_str().filter(|part| part.contains('*')) else {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        };
        let entries = found.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().filter_map(Result::ok);
        let entries = entries.take(MOST_ENTRIES);
        let matching = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| matches(pattern, name)));
        found = matching.map(|entry| entry.path()).collect();
        found.sort();
    }
    found.retain(|path| path.exists());
    found
}

/// Whether a name matches a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name.strip_prefix(first) else { return false };
    for part in middle.split('*') {
        let Some((_, behind)) = name.split_once(part) else { return false };
        name = behind;
    }
    name.ends_with(last)
}

/// The paths that handlers lead to.
fn handler_paths(configs: &[ConfigFile]) -> impl Iterator<Item = &Path> {
    configs.iter().filter_map(|file| file.content.as_ref().ok()).flat_map(config::paths)
}

/// Those of a name of ours where there is no program.
fn dead(configs: &[ConfigFile]) -> Vec<PathBuf> {
    let is_ours = |path: &&Path| {
        let is = |name: &str| path.file_name() == Some(OsStr::new(name));
        is(SHIM) || engines::ENGINES.iter().any(|engine| is(&format!("containerd-shim-{engine}-v1")))
    };
    handler_paths(configs).filter(is_ours).filter(|path| !is_executable(path)).map(Path::to_owned).collect()
}

/// The shims that handlers lead to by path, links resolved: each engine's is a link to the one.
fn shims(configs: &[ConfigFile]) -> Vec<PathBuf> {
    let resolved =
        handler_paths(configs).filter(|path| is_executable(path)).filter_map(|path| path.canonicalize().ok());
    resolved.filter(|path| path.file_name() == Some(OsStr::new(SHIM))).collect()
}

fn host() -> Host {
    let text = |path: &str| read(Path::new(path)).unwrap_or_default();
    let is = |path: &str, value: &str| text(path).trim() == value;
    Host {
        kernel: Version::find(&text("/proc/sys/kernel/osrelease")),
        cgroup: cgroup(Path::new("/sys/fs/cgroup")),
        systemd: Path::new("/run/systemd/system").is_dir(),
        overlay: text("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay"),
        seccomp: text("/proc/self/status").lines().any(|line| line.starts_with("Seccomp_filters:"))
            || Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        user_namespaces: if is("/proc/sys/user/max_user_namespaces", "0") {
            Some(UserNamespaces::Limit)
        } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
            Some(UserNamespaces::Sysctl)
        } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
            Some(UserNamespaces::AppArmor)
        } else {
            None
        },
        apparmor: is("/sys/module/apparmor/parameters/enabled", "Y"),
        selinux: match text("/sys/fs/selinux/enforce").trim() {
            "1" => Selinux::Enforcing,
            "0" => Selinux::Permissive,
            _ => Selinux::Absent,
        },
    }
}

/// What is mounted on `root`: one hierarchy (v2), or a folder of them.
fn cgroup(root: &Path) -> Option<Cgroup> {
    if let Ok(controllers) = read(&root.join("cgroup.controllers")) {
        return Some(Cgroup::V2(controllers.split_whitespace().map(str::to_owned).collect()));
    }
    let entries = fs::read_dir(root).ok()?.filter_map(Result::ok);
    let folders = entries.filter(|entry| entry.path().join("cgroup.procs").exists());
    let names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let hybrid = names.iter().any(|name| name == "unified");
    // Several controllers may share a hierarchy, such as `cpu,cpuacct`.
    let controllers: Vec<String> = names.iter().flat_map(|name| name.split(',')).map(str::to_owned).collect();
    match controllers.is_empty() {
        true => None,
        false if hybrid => Some(Cgroup::Hybrid(controllers)),
        false => Some(Cgroup::V1(controllers)),
    }
}

fn cache(path: &Path) -> Cache {
    let folder = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => CacheFolder::Folder { uid: metadata.uid(), mode: metadata.mode() },
        Ok(_) => CacheFolder::NotAFolder,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => CacheFolder::Absent,
        Err(error) => CacheFolder::Unreadable(error.to_string()),
    };
    let there = path.ancestors().find(|folder| folder.is_dir());
    let disk = there.and_then(|folder| nix::sys::statvfs::statvfs(folder).ok());
    let free = disk.map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
    Cache { path: path.to_owned(), folder, free }
}

/// The value of a command line's option: `-c VALUE` or `--config=VALUE`.
fn option<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    for (index, argument) in arguments.iter().enumerate() {
        match argument.split_once('=') {
            Some((name, value)) if names.contains(&name) => return Some(value),
            _ if names.contains(&argument.as_str()) => return arguments.get(index + 1).map(String::as_str),
            _ => {}
        }
    }
    None
}

/// A variable of another process's environment.
fn environment(pid: u32, name: &str) -> Option<String> {
    let text = read(Path::new(&format!("/proc/{pid}/environ"))).ok()?;
    text.split('\0').find_map(|variable| variable.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

fn on_path(program: &str) -> Option<PathBuf> {
    // Daemons are in folders that users' PATH may lack.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(env::split_paths(OsStr::from_bytes(SERVICE_PATH.as_bytes())));
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

/// A file's text, as far as it is looked at.
fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a program prints; none where it fails or takes too long.
async fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn().ok()?;
        let mut text = Vec::new();
        child.stdout.take()?.take(MOST).read_to_end(&mut text).await.ok()?;
        child.wait().await.ok()?.success().then(|| String::from_utf8_lossy(&text).into_owned())
    };
    tokio::time::timeout(PATIENCE, run).await.ok()?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn reads_options() {
        let arguments = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, expected) in [
            ("containerd -c /a", Some("/a")),
            ("containerd --config /a --address /b", Some("/a")),
            ("containerd --config=/a", Some("/a")),
            ("containerd --config", None),
            ("containerd", None),
        ] {
            assert_eq!(option(&arguments(line), &["-c", "--config"]), expected, "{line}");
        }
    }

    #[test]
    fn reads_what_programs_tell() {
        assert_eq!(build_of("lighter-wasmtime 0.1.0 (abc), wasmtime 48.0.8\n").unwrap(), "0.1.0 (abc)");
        assert_eq!(build_of("containerd-shim-lighter-v1 0.1.0 (abc)").unwrap(), "0.1.0 (abc)");
        assert_eq!(build_of(""), None);
        let info = |kind| serde_json::json!({"DriverStatus": [["Backing Filesystem", "extfs"], ["driver-type", kind]]});
        assert!(keeps_images_in_containerd(&info("io.containerd.snapshotter.v1")));
        assert!(!keeps_images_in_containerd(&info("overlay2")));
        assert!(!keeps_images_in_containerd(&serde_json::json!({"DriverStatus": 3})));
    }

    #[test]
    fn tells_cgroup_versions_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(cgroup(root), None);
        for name in ["cpu,cpuacct", "memory"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("cgroup.procs"), "").unwrap();
        }
        let Some(Cgroup::V1(mut controllers)) = cgroup(root) else { panic!("{:?}", cgroup(root)) };
        controllers.sort();
        assert_eq!(controllers, ["cpu", "cpuacct", "memory"]);
        fs::create_dir(root.join("unified")).unwrap();
        fs::write(root.join("unified/cgroup.procs"), "").unwrap();
        assert!(matches!(cgroup(root), Some(Cgroup::Hybrid(_))));
        fs::write(root.join("cgroup.controllers"), "cpu memory\n").unwrap();
        assert_eq!(cgroup(root), Some(Cgroup::V2(vec!["cpu".to_owned(), "memory".to_owned()])));
    }

    #[test]
    fn configuration_is_what_the_main_file_imports() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let names = || {
            let files = configs(&root.join("config.toml")).into_iter();
            files.map(|file| file.path.strip_prefix(root).unwrap().display().to_string()).collect::<Vec<_>>()
        };
        write("conf.d/b.toml", "imports = ['../config.toml', '../more.toml', '*.toml']");
        write("conf.d/a.toml", "");
        write("conf.d/a.conf", "");
        write("more.toml", "");
        assert_eq!(names(), [""; 0]);
        write("config.toml", "version = 3");
        assert_eq!(names(), ["config.toml"]);
        let absolute = format!("version = 3\nimports = ['{}/conf.d/*.toml']", root.display());
        for main in ["imports = ['conf.d/*.toml']", "imports = ['c*.d/*.toml', 'none/*.toml']", &absolute] {
            write("config.toml", main);
            assert_eq!(names(), ["config.toml", "conf.d/a.toml", "conf.d/b.toml", "conf.d/../more.toml"], "{main}");
        }
        // Without it, containerd does not start.
        write("config.toml", "imports = ['none.toml']");
        assert!(configs(&root.join("config.toml"))[1].content.is_err());
        for number in 0..2 * MOST_FILES {
            write(&format!("conf.d/{number}.toml"), "imports = ['*']");
        }
        write("config.toml", "imports = ['conf.d/*']");
        assert_eq!(names().len(), MOST_FILES);
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml.old", false),
            ("a*", "ba", false),
            ("a*a", "a", false),
            ("1*-*.toml", "10-a.toml", true),
            ("1*-*.toml", "10.toml", false),
            ("*-b-*-b-*", "-b-b-", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn shims_that_handlers_lead_to_are_found_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let config = |runtime: &str| {
            let text =
                format!("version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.wasm]\n{runtime}");
            [ConfigFile { path: "config.toml".into(), content: Ok(text.parse().unwrap()) }]
        };
        let shim = root.join(SHIM);
        let by = |key: &str, name: &str| shims(&config(&format!("{key} = '{}'", root.join(name).display())));
        let dead = |name: &str| dead(&config(&format!("runtime_path = '{}'", root.join(name).display())));
        assert!(by("runtime_path", SHIM).is_empty());
        fs::write(&shim, "").unwrap();
        assert!(by("runtime_path", SHIM).is_empty());
        assert_eq!(dead(SHIM), [shim.as_path()]);
        assert_eq!(dead("containerd-shim-wamr-v1"), [root.join("containerd-shim-wamr-v1")]);
        assert!(dead("containerd-shim-theirs-v1").is_empty());
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(&shim, root.join("containerd-shim-runc-v2")).unwrap();
        std::os::unix::fs::symlink(SHIM, root.join("containerd-shim-wamr-v1")).unwrap();
        assert!(dead(SHIM).is_empty() && dead("containerd-shim-wamr-v1").is_empty());
        for (key, name, found) in [
            ("runtime_path", SHIM, true),
            ("runtime_type", SHIM, true),
            ("runtime_path", "containerd-shim-wamr-v1", true),
            ("runtime_path", "containerd-shim-runc-v2", false),
        ] {
            assert_eq!(by(key, name), found.then(|| shim.clone()).into_iter().collect::<Vec<_>>(), "{key} {name}");
        }
        assert!(shims(&config("runtime_type = 'io.containerd.lighter.v1'")).is_empty());
    }

    #[test]
    fn looks_at_the_cache_without_following_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let absent = cache(&path);
        assert!(absent.folder == CacheFolder::Absent && absent.free.is_some());
        std::os::unix::fs::symlink(folder.path(), &path).unwrap();
        assert_eq!(cache(&path).folder, CacheFolder::NotAFolder);
    }

    #[tokio::test]
    async fn this_machine_can_be_looked_at() {
        let facts = gather().await;
        assert!(facts.host.kernel.is_some());
        assert!(!super::super::diagnose(&facts).is_empty());
    }
}
