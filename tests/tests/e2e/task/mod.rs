//! What a running task can be told, and what it tells: pause and resume, new limits, the kernel's kills.
//!
//! Of WebAssembly and of native containers; where runc does the same, by runc as well.

mod memory;
mod oom;
mod pause;
mod update;

use std::{fs, path::PathBuf, time::Duration};

use lighter_tests::{Bed, Image, RUNTIME, Running, guests};

use crate::cleanup::pid_of;

const RUNC: &str = "io.containerd.runc.v2";

/// What runs a container, and what runs in it for as long as it is let.
#[derive(Clone, Copy, Debug)]
struct Kind {
    runtime: &'static str,
    wasm: bool,
}

impl Kind {
    /// Each is expected to behave alike.
    const ALL: [Kind; 3] = [
        Kind { runtime: RUNTIME, wasm: true },
        Kind { runtime: RUNTIME, wasm: false },
        Kind { runtime: RUNC, wasm: false },
    ];

    /// The name of a container of this kind in one test.
    fn id(self, test: &str) -> String {
        let runtime = if self.runtime == RUNC { "runc" } else { "lighter" };
        format!("{test}-{}-{runtime}", if self.wasm { "wasm" } else { "native" })
    }

    /// Runs a loop without end, which takes CPU time.
    #[track_caller]
    fn start_busy(self, bed: &Bed, id: &str, flags: &[&str]) {
        let args: &[&str] = if self.wasm { &[] } else { &["sh", "-c", "while true; do :; done"] };
        let image = if self.wasm {
            Image::wasm("docker.io/library/busy-task:latest", guests::wat("busy"))
        } else {
            native_image(bed)
        };
        bed.import(&image);
        let platform: &[&str] = if self.wasm { &["--platform", "wasi/wasm"] } else { &[] };
        let run = ["run", "--detach", "--null-io", "--runtime", self.runtime];
        bed.ctr(&[&run[..], platform, flags, &[image.name(), id], args].concat()).run().ok();
    }
}

/// busybox, from the bed.
fn native_image(bed: &Bed) -> Image {
    let busybox = fs::read(bed.path("/bin/busybox")).expect("busybox of the bed");
    let image = Image::new("docker.io/library/busybox:task").of_host().file("/bin/busybox", busybox).folder("/proc");
    let applets = ["echo", "sh", "sleep", "tail"];
    applets
        .iter()
        .fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox"))
        .env("PATH", "/bin")
        .cmd(&["sleep", "1000"])
}

/// CPU time that the init of a task has taken, in the kernel's ticks. Source: proc_pid_stat(5).
#[track_caller]
fn cpu_time(bed: &Bed, id: &str) -> u64 {
    let stat = fs::read_to_string(bed.path(format!("/proc/{}/stat", pid_of(bed, id)))).expect("the task's init");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().map(|&at: &usize| fields[at].parse::<u64>().expect("a number")).sum()
}

/// Whether the init of a task gets anything done.
#[track_caller]
fn works(bed: &Bed, id: &str) -> bool {
    let before = cpu_time(bed, id);
    std::thread::sleep(Duration::from_millis(300));
    cpu_time(bed, id) > before
}

/// A file of the cgroup of one of `ctr`'s containers, in whichever hierarchy has it; nothing where none has.
fn cgroup_file(bed: &Bed, id: &str, file: &str) -> Option<String> {
    let root = bed.path("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).into_iter().flatten().flatten().map(|item| item.path());
    let text = |hierarchy: PathBuf| fs::read_to_string(hierarchy.join("default").join(id).join(file)).ok();
    let text = std::iter::once(root.clone()).chain(hierarchies).find_map(text)?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Whether the node has cgroup v2 only.
fn unified(bed: &Bed) -> bool {
    bed.path("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// `ctr events`, once it hears: events of our own tell.
#[track_caller]
fn events(bed: &Bed, image: &Image) -> Running {
    bed.import(image);
    let events = bed.ctr(&["events"]).spawn();
    let mut probes = 0..100;
    while !events.stdout().contains("/images/update") {
        let probe = probes.next().expect("ctr sees events within ten seconds");
        bed.ctr(&["images", "label", image.name(), &format!("probe={probe}")]).run().ok();
        std::thread::sleep(Duration::from_millis(100));
    }
    events
}

/// The topics of a task's events, in their order.
fn topics_of(events: &str, id: &str) -> Vec<String> {
    let of_task = events.lines().filter(|line| line.contains(&format!(r#""container_id":"{id}""#)));
    of_task
        .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("/tasks/")))
        .map(str::to_owned)
        .collect()
}
