//! A node without Lighter's handlers, and the installer on it.

use std::{fs, path::Path, time::Duration};

use lighter_tests::{Bed, Cmd, Image, Output, OwnBed, Suite, cri::Cri, guests};

/// Where containerd is configured.
pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";

/// Beds have no systemd.
const RESTART: &str = "/etc/restart-containerd";
const RESTART_SCRIPT: &str = "\
pid=$(cat /run/bed/containerd.pid)
kill $pid
while [ -e /proc/$pid ]; do sleep 0.05; done
echo restarted >>/run/bed/restarts
setsid -f sh -c 'echo $$ >/run/bed/containerd.pid; exec containerd </dev/null >>/var/log/bed/containerd.log 2>&1'
";

/// A bed whose containerd has no handler but runc's, and pods that can start.
pub(crate) fn node(suite: Suite) -> OwnBed {
    let bed = Bed::fresh(suite);
    // While it still has what the testbed gave it.
    drop(Cri::connect(&bed));
    write(&bed, CONFIG, &without_handlers(&read(&bed, CONFIG)));
    write(&bed, RESTART, RESTART_SCRIPT);
    bed.kill_containerd();
    bed.start_containerd();
    bed
}

/// The configuration without our handlers, and without what they need.
fn without_handlers(config: &str) -> String {
    let kept = without(config, ".runtimes.lighter");
    kept.lines().filter(|line| !line.contains("use_local_image_pull")).map(|line| format!("{line}\n")).collect()
}

/// A configuration without the tables whose names contain this.
pub(crate) fn without(config: &str, name: &str) -> String {
    let mut kept = String::new();
    let mut goes = false;
    for line in config.lines() {
        if line.starts_with('[') {
            goes = line.contains(name);
        }
        if !goes {
            kept += &format!("{line}\n");
        }
    }
    kept
}

/// The installer with these words.
pub(crate) fn installer(bed: &Bed, words: &[&str]) -> Cmd {
    let restart = format!("sh {RESTART}");
    bed.cmd(&[&["lighter-node", "--restart-command", &restart], words].concat()).timeout(Duration::from_secs(180))
}

/// Installs what is under test.
#[track_caller]
pub(crate) fn install(bed: &Bed) -> Output {
    installer(bed, &["install", "--from", "/usr/local/bin"]).run().ok()
}

/// How often containerd was restarted.
pub(crate) fn restarts(bed: &Bed) -> usize {
    fs::read_to_string(bed.path("/run/bed/restarts")).unwrap_or_default().lines().count()
}

/// What there is of Lighter: names, contents and modes of all that an installer could have touched.
#[track_caller]
pub(crate) fn traces(bed: &Bed) -> String {
    let list = "find /etc/containerd /opt ! -path '/opt/containerd/*' -exec ls -ldn {} + | awk '{print $1, $3, $4, $9, $10, $11}'";
    bed.sh(&format!("{list}; find /etc/containerd -type f -exec cat {{}} +")).run().ok().stdout
}

/// A module that says "ready" and stays.
pub(crate) fn sleeper() -> Image {
    let image = Image::new("docker.io/library/sleeper:node").of_host();
    image.file("/sleep.wasm", guests::p1("sleep")).file("/hello.wasm", guests::p1("hello")).entrypoint(&["/sleep.wasm"])
}

#[track_caller]
pub(crate) fn read(bed: &Bed, path: &str) -> String {
    fs::read_to_string(bed.path(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

#[track_caller]
pub(crate) fn write(bed: &Bed, path: &str, text: &str) {
    let path = bed.path(path);
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap_or_else(|error| panic!("{error}"));
    fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
