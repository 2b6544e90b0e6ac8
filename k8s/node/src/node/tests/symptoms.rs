//! Every symptom that `docs/kubernetes.md` has of the installer is what it says, where the page says that it does.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use super::{
    Bench,
    bench::{V2, cases, put},
    block,
};
use crate::{
    Error, Host,
    daemon::{Containerd, Daemon, Running},
    distribution::{Distribution, Layout},
    lock::Lock,
};

const PAGE: &str = include_str!("../../../../../docs/kubernetes.md");

/// The symptoms of the page's first table: what is in backquotes in the first column, split where it leaves words out.
fn documented() -> BTreeSet<Vec<String>> {
    let table = PAGE.lines().skip_while(|line| !line.starts_with("| it says | why |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| line.split('|').nth(1).unwrap());
    let quoted = |row: &str| row.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let pieces =
        |text: String| text.split('…').map(|piece| piece.trim().to_owned()).filter(|p| !p.is_empty()).collect();
    rows.flat_map(quoted).map(pieces).collect()
}

/// Installs on containerd 1.7 with this configuration.
fn configured(text: &str) -> Error {
    let mut case = cases().swap_remove(0);
    case.files[0].1 = text.to_owned();
    Bench::new(case).install(0).unwrap_err()
}

fn failing(prepare: impl Fn(&Bench)) -> Error {
    let bench = Bench::of("containerd 2.1");
    prepare(&bench);
    bench.install(0).unwrap_err()
}

/// What brings each about.
fn provoked() -> Vec<(&'static [&'static str], Error)> {
    let taken =
        format!("{V2}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lighter]\nruntime_type = 'o'\n");
    let replaced = format!("imports = ['/etc/containerd/cri.toml']\n{V2}");
    let mut importing = cases().swap_remove(0);
    importing.files[0].1 = replaced;
    importing.files.push(("/etc/containerd/cri.toml".to_owned(), V2.replace("mine", "theirs")));
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new(folder.path());
    let busy = [(); 2].map(|()| Lock::take(&host, Path::new("/opt"), Path::new("/opt/state"), Duration::ZERO));
    let [_held, Err(busy)] = busy else { panic!("two locks") };
    let theirs = Bench::of("containerd 1.7");
    let config = Path::new("/etc/containerd/config.toml");
    let write = |step: &str| put(&theirs.fake.host, config, &format!("{V2}# at {step}\n"));
    let raced = block(theirs.node(&write).install(theirs.builds[0].path(), "lighter")).unwrap_err();
    let unknown = Layout { units: &["no-such-unit.service"], ..Layout::of(Distribution::Containerd) };
    let pods = Bench::of("containerd 2.1");
    pods.install(0).unwrap();
    pods.fake.pods.borrow_mut().push(Running { handler: "lighter".to_owned(), started: super::now() });
    vec![
        (&["was broken already"], configured("version = ")),
        (&["is of configuration version 1"], configured("[plugins]")),
        (&["the handler \"lighter\" is there already and runs"], configured(&taken)),
        (&["disables CRI"], configured("version = 2\ndisabled_plugins = ['cri']")),
        (
            &["can't be written to"],
            failing(|bench| fs::write(bench.root.path().join("opt/lighter"), "a file").unwrap()),
        ),
        (
            &["is there and not ours"],
            failing(|bench| fs::create_dir_all(bench.root.path().join("opt/lighter/bin")).unwrap()),
        ),
        (&["does not run on this node"], failing(|bench| bench.fake.fails.borrow_mut().push("lighter-native".into()))),
        (&["containerd would lose or change"], failing(|bench| bench.fake.replaces.set(true))),
        (&["containerd does not see", "in its configuration"], Bench::new(importing).install(0).unwrap_err()),
        (
            &["the handler \"lighter\" does not answer:", "failed to get sandbox image"],
            failing(|bench| {
                bench.fake.fails.borrow_mut().push("lighter".to_owned());
                bench.fake.says.replace("failed to start sandbox: failed to get sandbox image".to_owned());
            }),
        ),
        (
            &["no unit of systemd's is known"],
            block(Containerd::new(Host::new("/"), unknown, None).restart()).unwrap_err(),
        ),
        (&["was changed by somebody else at the same moment"], raced),
        (&["another lighter-node is at work"], busy),
        (&["pods still run by Lighter"], pods.uninstall().unwrap_err()),
    ]
}

#[test]
fn each_is_provoked_and_each_is_documented() {
    let provoked = provoked();
    for (pieces, error) in &provoked {
        let text = error.to_string();
        assert!(pieces.iter().all(|piece| text.contains(piece)), "{pieces:?}: {text}");
    }
    let provoked: BTreeSet<Vec<String>> =
        provoked.iter().map(|(pieces, _)| pieces.iter().map(|&piece| piece.to_owned()).collect()).collect();
    assert_eq!(provoked, documented(), "what is provoked here, and what docs/kubernetes.md has");
}
