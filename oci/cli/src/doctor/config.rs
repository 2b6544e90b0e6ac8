//! containerd's configuration: Kubernetes reaches a runtime by a table in it. `ctr` and Docker need none.

use std::path::Path;

use toml::{Table, Value};

use super::{
    Finding,
    facts::{ConfigFile, Facts},
    version::Version,
};

const CHECK: &str = "kubernetes";
/// Names of the CRI plugin's part that has the runtimes: since configuration version 3, and in version 2.
/// Source: containerd `docs/cri/config.md`.
const RUNTIME_PLUGIN: &str = "io.containerd.cri.v1.runtime";
const OLD_PLUGIN: &str = "io.containerd.grpc.v1.cri";
/// The part that pulls images, since version 3.
const IMAGES_PLUGIN: &str = "io.containerd.cri.v1.images";
/// Names of this shim; the others are for commands that name another project's.
const RUNTIME_TYPES: &[&str] = &["io.containerd.lighter.v1", "io.containerd.wasmtime.v1"];
/// Since then CRI pulls through the transfer service, which does not unpack for platforms other than the host's.
const TRANSFERS: Version = Version(2, 1, 0);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<_> = facts.configs.iter().filter_map(unreadable).collect();
    let tables = || facts.configs.iter().filter_map(|file| file.content.as_ref().ok());
    if !facts.kubernetes {
        findings.push(Finding::ok(CHECK, "not on this machine; ctr and docker need no configuration"));
        return findings;
    }
    if tables().any(disables_cri) {
        findings.push(Finding::problem(
            CHECK,
            "containerd's configuration disables CRI, so no kubelet can use it",
            format!("take \"cri\" out of disabled_plugins in {}, then: systemctl restart containerd", main_file(facts)),
        ));
        return findings;
    }
    findings.push(runtime(facts));
    findings.extend(facts.dead.iter().map(|path| {
        let what =
            format!("a runtime handler leads to {}, where there is no program: no pod of it can start", path.display());
        Finding::problem(
            CHECK,
            what,
            "run `lighter-node install`, or correct the handler's runtime_path, then restart containerd",
        )
    }));
    if facts.containerds.iter().any(|containerd| containerd.version.is_some_and(|version| version >= TRANSFERS)) {
        findings.push(image_pull(facts));
    }
    findings
}

fn unreadable(file: &ConfigFile) -> Option<Finding> {
    let why = file.content.as_ref().err()?;
    let cure = format!("correct it, or run `lighter doctor` as root: {}", file.path.display());
    Some(Finding::warning(CHECK, format!("{}: {why}", file.path.display()), cure))
}

/// Whether a RuntimeClass's handler can lead to the shim.
fn runtime(facts: &Facts) -> Finding {
    let mut ignored = None;
    for file in &facts.configs {
        let Ok(table) = &file.content else { continue };
        let (plugin, other) = runtime_plugins(table);
        if let Some(handler) = handler(table, plugin) {
            return Finding::ok(CHECK, format!("runtime handler {handler:?} is this shim ({})", file.path.display()));
        }
        if let Some(handler) = handler(table, other) {
            ignored = Some(format!(
                "{} has handler {handler:?} under {other:?}, which containerd ignores in a file of version {}",
                file.path.display(),
                config_version(table)
            ));
        }
    }
    let what = ignored.unwrap_or_else(|| "containerd's configuration has no runtime handler for this shim".to_owned());
    let cure = cure(facts, &handler_lines(version_of_main(facts)));
    Finding::warning(CHECK, what, cure)
}

/// Where to put lines so that they last, and what makes containerd read them.
fn cure(facts: &Facts, lines: &str) -> String {
    let Some(folder) = &facts.rancher else {
        return format!("put into {}:\n{lines}\nthen: systemctl restart containerd", main_file(facts));
    };
    // k3s and rke2 render the configuration from a template at each start.
    // Source: k3s documentation, "Configuring containerd".
    let name = if version_of_main(facts) >= 3 { "config-v3.toml.tmpl" } else { "config.toml.tmpl" };
    format!(
        "put into {}/{name} (config.toml beside it is written anew at each start), below a line {{{{ template \"base\" . \
         }}}}:\n{lines}\nthen restart k3s or rke2",
        folder.display(),
    )
}

fn handler_lines(version: i64) -> String {
    let plugin = if version >= 3 { RUNTIME_PLUGIN } else { OLD_PLUGIN };
    format!("[plugins.'{plugin}'.containerd.runtimes.lighter]\n  runtime_type = 'io.containerd.lighter.v1'")
}

/// Whether images for `wasi/wasm` with ordinary layers are unpacked.
fn image_pull(facts: &Facts) -> Finding {
    const CHECK: &str = "image pull";
    let local = facts.configs.iter().filter_map(|file| file.content.as_ref().ok()).any(|table| {
        let images = plugin(table, IMAGES_PLUGIN).and_then(|images| images.get("use_local_image_pull"));
        images.and_then(Value::as_bool) == Some(true)
    });
    if local {
        return Finding::ok(CHECK, "use_local_image_pull is set");
    }
    let lines = format!("[plugins.'{IMAGES_PLUGIN}']\n  use_local_image_pull = true");
    let migrate = match version_of_main(facts) {
        3.. => "",
        // The old plugin's table has no such key.
        _ => "first bring the file to version 3 (`containerd config migrate` prints it), then ",
    };
    Finding::warning(
        CHECK,
        "pods may not pull wasi/wasm images with ordinary layers; artifacts and --format image are not affected",
        format!("{migrate}{}", cure(facts, &lines)),
    )
}

/// The name of a runtime that is this shim.
fn handler<'a>(config: &'a Table, plugin_name: &str) -> Option<&'a str> {
    let is_shim = |path: &str| Path::new(path).file_name().is_some_and(|name| name == super::containerd::SHIM);
    let ours = |runtime: &Value| RUNTIME_TYPES.contains(&runs(runtime)) || is_shim(runs(runtime));
    runtimes(config, plugin_name)?.iter().find(|(_, runtime)| ours(runtime)).map(|(name, _)| name.as_str())
}

/// The paths that a file's runtimes lead to, this shim's or another's.
pub(super) fn paths(config: &Table) -> impl Iterator<Item = &Path> {
    let runtimes = runtimes(config, runtime_plugins(config).0).into_iter().flatten();
    runtimes.map(|(_, runtime)| Path::new(runs(runtime))).filter(|path| path.is_absolute())
}

/// What a runtime leads to: a path or a type. Whatever the type, a path is what runs: `lighter-node` writes both.
fn runs(runtime: &Value) -> &str {
    let text = |key| runtime.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("runtime_path") {
        "" => text("runtime_type"),
        path => path,
    }
}

fn runtimes<'a>(config: &'a Table, plugin_name: &str) -> Option<&'a Table> {
    plugin(config, plugin_name)?.get("containerd")?.get("runtimes")?.as_table()
}

/// The plugin whose runtimes count in a file of this version, and the other, which is ignored.
fn runtime_plugins(config: &Table) -> (&'static str, &'static str) {
    if config_version(config) >= 3 { (RUNTIME_PLUGIN, OLD_PLUGIN) } else { (OLD_PLUGIN, RUNTIME_PLUGIN) }
}

fn plugin<'a>(config: &'a Table, name: &str) -> Option<&'a Value> {
    config.get("plugins")?.get(name)
}

/// A file without a version is of version 1.
fn config_version(config: &Table) -> i64 {
    config.get("version").and_then(Value::as_integer).unwrap_or(1)
}

/// The version to write lines for: the main file's, or what its containerd would write.
fn version_of_main(facts: &Facts) -> i64 {
    if let Some(Ok(table)) = facts.configs.first().map(|file| &file.content) {
        return config_version(table);
    }
    let newest = facts.containerds.iter().filter_map(|containerd| containerd.version).max();
    if newest.is_some_and(|version| version >= Version(2, 0, 0)) { 3 } else { 2 }
}

fn main_file(facts: &Facts) -> String {
    match facts.configs.first() {
        Some(file) => file.path.display().to_string(),
        None => format!("/etc/containerd/config.toml (after `version = {}`)", version_of_main(facts)),
    }
}

fn disables_cri(config: &Table) -> bool {
    let disabled = config.get("disabled_plugins").and_then(Value::as_array);
    disabled.is_some_and(|names| {
        names.iter().filter_map(Value::as_str).any(|name| ["cri", OLD_PLUGIN, RUNTIME_PLUGIN].contains(&name))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{
        super::{Status, facts::Containerd},
        *,
    };

    fn facts(config: &str, version: Version) -> Facts {
        let containerd = Containerd {
            executable: "/usr/bin/containerd".into(),
            version: Some(version),
            pid: Some(1),
            path_known: true,
            folders: Vec::new(),
            shim: None,
        };
        let content = config.parse::<Table>().map_err(|error| error.message().to_owned());
        Facts {
            containerds: vec![containerd],
            kubernetes: true,
            configs: vec![ConfigFile { path: "/etc/containerd/config.toml".into(), content }],
            ..Facts::default()
        }
    }

    fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.check == check).unwrap()
    }

    #[test]
    fn a_handler_counts_only_under_the_plugin_of_its_version() {
        let table = [
            (2, OLD_PLUGIN, "io.containerd.lighter.v1", Status::Ok),
            (3, RUNTIME_PLUGIN, "io.containerd.lighter.v1", Status::Ok),
            (4, RUNTIME_PLUGIN, "io.containerd.lighter.v1", Status::Ok),
            (3, RUNTIME_PLUGIN, "/opt/bin/containerd-shim-lighter-v1", Status::Ok),
            (3, RUNTIME_PLUGIN, "io.containerd.runc.v2", Status::Warning),
            (
                3,
                RUNTIME_PLUGIN,
                "io.containerd.runc.v2\"\nruntime_path = \"/opt/lighter/bin/containerd-shim-lighter-v1",
                Status::Ok,
            ),
            (3, RUNTIME_PLUGIN, "io.containerd.lighter.v1\"\nruntime_path = \"/bin/other", Status::Warning),
            (3, OLD_PLUGIN, "io.containerd.lighter.v1", Status::Warning),
            (2, RUNTIME_PLUGIN, "io.containerd.lighter.v1", Status::Warning),
        ];
        for (version, plugin, runtime_type, status) in table {
            let config = format!(
                "version = {version}\n[plugins.\"{plugin}\".containerd.runtimes.wasm]\nruntime_type = \"{runtime_type}\""
            );
            let findings = check(&facts(&config, Version(2, 0, 0)));
            let finding = of(&findings, CHECK);
            assert_eq!(finding.status, status, "{config}: {finding:?}");
            if let Some(cure) = &finding.cure {
                assert!(cure.contains(if version >= 3 { RUNTIME_PLUGIN } else { OLD_PLUGIN }), "{cure}");
            }
        }
    }

    #[test]
    fn without_kubernetes_there_is_nothing_to_configure() {
        let facts = Facts { kubernetes: false, ..facts("disabled_plugins = [\"cri\"]", Version(2, 1, 0)) };
        let findings = check(&facts);
        assert!(findings.len() == 1 && findings[0].status == Status::Ok, "{findings:?}");
    }

    #[test]
    fn a_handler_that_leads_nowhere_is_a_problem() {
        let facts = Facts {
            dead: vec!["/opt/gone/containerd-shim-lighter-v1".into()],
            ..facts("version = 3", Version(2, 1, 0))
        };
        let findings = check(&facts);
        let found = findings.iter().find(|finding| finding.status == Status::Problem).unwrap();
        assert!(found.what.contains("/opt/gone/containerd-shim-lighter-v1"), "{found:?}");
    }

    #[test]
    fn a_kubelet_without_cri_is_a_problem() {
        let findings = check(&facts("disabled_plugins = [\"cri\"]", Version(2, 1, 0)));
        assert_eq!(of(&findings, CHECK).status, Status::Problem);
    }

    #[test]
    fn the_pull_of_ordinary_layers_is_told_from_2_1_on() {
        let pull = |config: &str, version| {
            let findings = check(&facts(config, version));
            findings.into_iter().find(|finding| finding.check == "image pull").map(|finding| finding.status)
        };
        let set = format!("version = 3\n[plugins.'{IMAGES_PLUGIN}']\nuse_local_image_pull = true");
        assert_eq!(pull("version = 3", Version(2, 0, 9)), None);
        assert_eq!(pull("version = 3", Version(2, 1, 0)), Some(Status::Warning));
        assert_eq!(pull(&set, Version(2, 1, 0)), Some(Status::Ok));
    }

    #[test]
    fn the_cure_is_for_the_file_that_lasts() {
        let mut facts = facts("version = 2", Version(1, 7, 24));
        facts.rancher = Some("/var/lib/rancher/k3s/agent/etc/containerd".into());
        let cure = runtime(&facts).cure.unwrap();
        assert!(cure.contains("containerd/config.toml.tmpl ") && cure.contains("{{ template \"base\" . }}"), "{cure}");
        let cure = image_pull(&facts).cure.unwrap();
        assert!(cure.starts_with("first bring") && cure.contains("containerd/config.toml.tmpl "), "{cure}");
        facts.configs.clear();
        facts.rancher = None;
        facts.containerds[0].version = Some(Version(2, 0, 0));
        let cure = runtime(&facts).cure.unwrap();
        assert!(cure.contains("`version = 3`") && cure.contains(RUNTIME_PLUGIN), "{cure}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_told() {
        let findings = check(&facts("version = ", Version(2, 0, 0)));
        assert!(findings[0].status == Status::Warning && findings[0].what.contains("config.toml"), "{findings:?}");
    }
}
