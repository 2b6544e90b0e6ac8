//! containerd: new enough, and able to find the shim.

use std::path::Path;

use super::{
    Finding, Status,
    facts::{Containerd, Facts},
    version::Version,
};

/// The name that containerd makes of `io.containerd.lighter.v1`.
pub(super) const SHIM: &str = "containerd-shim-lighter-v1";

const CHECK: &str = "containerd";
/// Older ones speak another shim protocol.
const OLDEST: Version = Version(1, 7, 0);
/// Older ones refuse to pull images with layers that are no archives.
const MODULE_LAYERS: Version = Version(1, 7, 7);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    if facts.containerds.is_empty() {
        return vec![Finding::problem(
            CHECK,
            "it is not installed, or not on PATH",
            "install it: apt-get install containerd; `lighter run` works without it",
        )];
    }
    let mut findings = Vec::new();
    for containerd in &facts.containerds {
        findings.push(version(containerd));
        findings.push(path(containerd, facts));
    }
    findings
}

fn version(containerd: &Containerd) -> Finding {
    let name = containerd.executable.display();
    let Some(version) = containerd.version else {
        return Finding::warning(CHECK, format!("{name} does not tell its version"), format!("run {name} --version"));
    };
    if version < OLDEST {
        return Finding::problem(
            CHECK,
            format!("{name} is {version}, older than {OLDEST}"),
            "install containerd 1.7 or 2.x",
        );
    }
    if version < MODULE_LAYERS {
        return Finding::warning(
            CHECK,
            format!("{name} is {version}, which refuses images whose module is a layer of its own"),
            "install a newer containerd, or build images with --format tar",
        );
    }
    match containerd.pid {
        Some(pid) => Finding::ok(CHECK, format!("{name} {version}, running as process {pid}")),
        None => Finding {
            status: Status::Warning,
            cure: Some("start it: systemctl start containerd".to_owned()),
            ..Finding::ok(CHECK, format!("{name} {version} is not running, or another user's"))
        },
    }
}

/// containerd looks for shims on its `PATH`, and then beside itself, unless a runtime handler of Kubernetes' leads to one.
/// Source: containerd `runtime/v2/shim/util.go` (1.7), `core/runtime/v2/shim_manager.go` (2.x).
fn path(containerd: &Containerd, facts: &Facts) -> Finding {
    const CHECK: &str = "shim";
    let ours = &facts.programs.folder;
    let folders: Vec<_> = containerd.folders.iter().map(|folder| folder.display().to_string()).collect();
    let Some(shim) = &containerd.shim else {
        if let Some(shim) = facts.shims.first().filter(|_| facts.kubernetes) {
            return by_handler(CHECK, shim, ours);
        }
        let assumed = if containerd.path_known { "" } else { " (its PATH can't be read; assuming systemd's)" };
        return Finding::problem(
            CHECK,
            format!("{SHIM} is in none of the folders that containerd looks in{assumed}: {}", folders.join(", ")),
            link(&containerd.folders, ours),
        );
    };
    if shim.parent() != Some(ours) {
        return Finding::warning(
            CHECK,
            format!("containerd finds {}, which is not the one beside lighter in {}", shim.display(), ours.display()),
            format!("remove one of the two, or link it: ln -sf {}/{SHIM} {}", ours.display(), shim.display()),
        );
    }
    Finding::ok(CHECK, format!("containerd finds {}", shim.display()))
}

/// What `lighter-node` sets up: a path instead of a name.
fn by_handler(check: &'static str, shim: &Path, ours: &Path) -> Finding {
    let shown = shim.display();
    if shim.parent() != Some(ours) {
        return Finding::warning(
            check,
            format!("runtime handlers lead to {shown}, which is not the one beside lighter in {}", ours.display()),
            format!("run the lighter beside it, or have the handlers lead to {}/{SHIM}", ours.display()),
        );
    }
    Finding::ok(check, format!("runtime handlers lead to {shown}; ctr and Docker, which go by name, do not find it"))
}

fn link(folders: &[std::path::PathBuf], ours: &Path) -> String {
    let into = folders.iter().find(|folder| **folder == Path::new("/usr/local/bin")).or(folders.first());
    match into {
        Some(into) => format!(
            "ln -s {}/{SHIM} {}/, or add the folder to its PATH: `systemctl edit containerd`, then\n[Service]\n\
             Environment=PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            ours.display(),
            into.display(),
            ours.display()
        ),
        None => "give containerd a PATH: systemctl edit containerd".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::facts::Programs, *};

    fn running(version: Version) -> Containerd {
        Containerd {
            executable: "/usr/bin/containerd".into(),
            version: Some(version),
            pid: Some(7),
            path_known: true,
            folders: vec!["/usr/local/bin".into(), "/usr/bin".into()],
            shim: Some("/usr/local/bin/containerd-shim-lighter-v1".into()),
        }
    }

    #[test]
    fn versions_are_judged() {
        let table = [
            (Version(1, 6, 20), Status::Problem),
            (Version(1, 7, 0), Status::Warning),
            (Version(1, 7, 6), Status::Warning),
            (Version(1, 7, 7), Status::Ok),
            (Version(2, 1, 9), Status::Ok),
        ];
        for (version, status) in table {
            assert_eq!(super::version(&running(version)).status, status, "{version}");
        }
        assert_eq!(super::version(&Containerd { pid: None, ..running(Version(2, 0, 0)) }).status, Status::Warning);
        assert_eq!(check(&Facts::default())[0].status, Status::Problem);
    }

    fn machine(folder: &str) -> Facts {
        Facts { programs: Programs { folder: folder.into(), ..Programs::default() }, ..Facts::default() }
    }

    #[test]
    fn the_shim_must_be_where_containerd_looks() {
        assert_eq!(path(&running(OLDEST), &machine("/usr/local/bin")).status, Status::Ok);
        let elsewhere = machine("/opt/lighter/bin");
        assert_eq!(path(&running(OLDEST), &elsewhere).status, Status::Warning);
        let hidden = path(&Containerd { shim: None, path_known: false, ..running(OLDEST) }, &elsewhere);
        assert_eq!(hidden.status, Status::Problem);
        assert!(hidden.what.contains("assuming systemd's"), "{hidden:?}");
        let cure = hidden.cure.unwrap();
        assert!(cure.starts_with("ln -s /opt/lighter/bin/containerd-shim-lighter-v1 /usr/local/bin/"), "{cure}");
        assert!(cure.contains("Environment=PATH=/opt/lighter/bin:"), "{cure}");
    }

    #[test]
    fn kubernetes_needs_no_name_where_handlers_lead_to_the_shim() {
        let containerd = Containerd { shim: None, ..running(OLDEST) };
        let (ours, other) = ("/opt/lighter/bin/containerd-shim-lighter-v1", "/opt/old/containerd-shim-lighter-v1");
        for (kubernetes, shims, status) in [
            (true, &[ours][..], Status::Ok),
            (true, &[other], Status::Warning),
            (true, &[], Status::Problem),
            (false, &[ours], Status::Problem),
        ] {
            let shims = shims.iter().map(Into::into).collect();
            let finding = path(&containerd, &Facts { kubernetes, shims, ..machine("/opt/lighter/bin") });
            assert_eq!(finding.status, status, "{finding:?}");
            assert_eq!(finding.what.contains("ctr and Docker"), status == Status::Ok, "{finding:?}");
        }
    }
}
