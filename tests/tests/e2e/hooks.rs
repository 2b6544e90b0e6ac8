//! OCI hooks: when each is run, where, and what it is told.
//!
//! Native containers run by runc as well, and their hooks must see the same. One thing differs with intent: runc before 1.5
//! runs poststart when it creates a container, and this runs it after the start, as the runtime spec has it.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Output, RUNTIME, Suite, guests, on_every_suite};
use serde_json::{Value, json};

use crate::cleanup::{pid_of, tasks};

on_every_suite! {
    told_as_by_runc,
    failures,
    timeouts,
    of_guests,
    of_a_task_that_is_kept,
    of_a_killed_daemon,
}

const RUNC: &str = "io.containerd.runc.v2";

/// In the order in which they are run.
const POINTS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
/// Those that are run on the host, in the container's absence or beside it.
const OF_HOST: [&str; 4] = ["prestart", "createRuntime", "poststart", "poststop"];
/// Those of guests: the other would be a program of the image.
const OF_GUESTS: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

/// Tells what it sees, each in a file of its own, and their order in another. Fails where it is told to.
const HOOK: &str = r#"
folder=/srv/hooks/$2 point=$1
echo $point >>$folder/order
{
  echo "arguments $*"
  echo "folder $(pwd)"
  env | grep -v -e ^SHLVL= -e ^OLDPWD= | sort | sed 's/^/env /'
  echo "state $(cat)"
  for kind in mnt pid net ipc uts; do
    [ "$(readlink /proc/self/ns/$kind)" = "$(cat $folder/$kind)" ] && echo "$kind of the host" || echo "$kind of its own"
  done
  grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status
} >>$folder/$point
[ ! -e $folder/fail-$point ] || { echo "no luck" >&2; exit 3; }
"#;

/// One container with hooks, by `ctr` from a spec of its own: no client of containerd's has flags for hooks.
struct Hooked<'bed> {
    bed: &'bed Bed,
    id: String,
    spec: Value,
}

impl<'bed> Hooked<'bed> {
    /// Of busybox, with this script, and a hook at each of these points.
    #[track_caller]
    fn native(bed: &'bed Bed, id: &str, points: &[&str], script: &str) -> Self {
        Self::new(bed, id, points, &["sh", "-c", script])
    }

    /// Of a guest.
    #[track_caller]
    fn guest(bed: &'bed Bed, id: &str, points: &[&str], guest: &str) -> Self {
        let hooked = Self::new(bed, id, points, &["/guest.wasm"]);
        fs::write(bed.path(format!("{}/rootfs/guest.wasm", hooked.folder())), guests::wat(guest)).expect("write guest");
        hooked
    }

    #[track_caller]
    fn new(bed: &'bed Bed, id: &str, points: &[&str], args: &[&str]) -> Self {
        let folder = format!("/srv/hooks/{id}");
        bed.sh(&format!(
            "rm -rf {folder}; mkdir -p {folder}/rootfs/bin {folder}/rootfs{folder}; cd {folder}
             for place in . rootfs{folder}; do
               for kind in mnt pid net ipc uts; do readlink /proc/self/ns/$kind >$place/$kind; done
             done
             for applet in busybox sh cat env grep ls pwd readlink sed sleep sort; do
               cp -a /bin/busybox rootfs/bin/busybox; [ $applet = busybox ] || ln -s busybox rootfs/bin/$applet
             done"
        ))
        .run()
        .ok();
        for place in [folder.clone(), format!("{folder}/rootfs{folder}")] {
            fs::write(bed.path(format!("{place}/hook.sh")), HOOK).expect("write hook");
        }
        let mut spec: Value = serde_json::from_str(&bed.ctr(&["oci", "spec"]).run().ok().stdout).expect("a spec");
        spec["root"] = json!({ "path": format!("{folder}/rootfs") });
        spec["process"]["args"] = json!(args);
        spec["process"]["env"] = json!(["PATH=/bin", "OWN=1"]);
        spec["linux"]["cgroupsPath"] = json!(format!("/default/{id}"));
        spec["annotations"] = json!({ "org.example.hooked": "yes" });
        let mut hooked = Self { bed, id: id.to_owned(), spec };
        for point in points {
            // busybox goes by the name that it is given.
            hooked.set(
                point,
                json!({
                    "path": "/bin/busybox",
                    "args": ["sh", format!("{folder}/hook.sh"), point, id],
                    "env": ["A=1", "B=x=y", "PATH=/bin"],
                }),
            );
        }
        hooked
    }

    fn folder(&self) -> String {
        format!("/srv/hooks/{}", self.id)
    }

    /// Where the hooks of the host and those in the container write.
    fn places(&self) -> [PathBuf; 2] {
        let folder = self.folder();
        [self.bed.path(&folder), self.bed.path(format!("{folder}/rootfs{folder}"))]
    }

    fn set(&mut self, point: &str, hook: Value) {
        self.spec["hooks"][point] = json!([hook]);
    }

    /// Makes the hook at a point fail from now on.
    fn fail(&self, point: &str) {
        for place in self.places() {
            fs::write(place.join(format!("fail-{point}")), "").expect("write file");
        }
    }

    /// `ctr run`, and then no trace of it but what the hooks wrote.
    #[track_caller]
    fn run(&self, runtime: &str) -> Output {
        for place in self.places() {
            for name in POINTS.iter().chain(&["order"]) {
                let _ = fs::remove_file(place.join(name));
            }
        }
        let output = self.ctr_run(runtime, &["--rm"]);
        assert!(tasks(self.bed).iter().all(|(id, ..)| *id != self.id), "{output}");
        // One that could not be created, `ctr` leaves.
        let _ = self.bed.ctr(&["containers", "rm", &self.id]).run();
        if runtime == RUNTIME {
            self.bed.assert_gone(&format!("/{}", self.id));
        }
        output
    }

    #[track_caller]
    fn ctr_run(&self, runtime: &str, flags: &[&str]) -> Output {
        let path = format!("{}/spec.json", self.folder());
        fs::write(self.bed.path(&path), self.spec.to_string()).expect("write spec");
        self.bed.ctr(&[&["run", "--runtime", runtime], flags, &["--config", &path, &self.id]].concat()).run()
    }

    /// The points at which the hooks were run, in their order; that in the container where it belongs.
    fn order(&self) -> Vec<String> {
        let [host, container] = self.places().map(|place| fs::read_to_string(place.join("order")).unwrap_or_default());
        let mut order: Vec<String> = host.lines().chain(container.lines()).map(str::to_owned).collect();
        order.sort_by_key(|point| POINTS.iter().position(|p| p == point));
        // Only what is in no file's order is put into another's.
        assert!(order.iter().filter(|point| *point != "startContainer").eq(host.lines()), "{host}");
        order
    }

    /// What the hook at a point saw.
    #[track_caller]
    fn told(&self, point: &str) -> String {
        let found = self.places().into_iter().find_map(|place| fs::read_to_string(place.join(point)).ok());
        found.unwrap_or_else(|| panic!("no hook was run at {point}"))
    }

    /// The state that the hook at a point was told of.
    #[track_caller]
    fn state(&self, point: &str) -> Value {
        let told = self.told(point);
        let json = told.lines().find_map(|line| line.strip_prefix("state ")).expect("a line of state");
        serde_json::from_str(json).expect("a state")
    }

    /// What is the same from one run to the next.
    #[track_caller]
    fn comparable(&self, point: &str) -> String {
        let mut state = self.state(point);
        let fields = state.as_object_mut().expect("fields of a state");
        // Each runtime knows its own version of the spec.
        fields.remove("ociVersion").expect("a version");
        if fields.get("pid").is_some_and(|pid| pid.as_i64() > Some(1)) {
            fields.insert("pid".to_owned(), "of the host".into());
        }
        let told = self.told(point);
        let lines = told.lines().filter(|line| match line.split_once([' ', ':']) {
            Some(("state", _)) => false,
            // Of what containerd gives its shims, runc's hooks get more.
            Some(("env", variable)) => ["A=", "B=", "OWN=", "PATH="].iter().any(|name| variable.starts_with(name)),
            // libcontainer sets it before this hook, runc after it. It has all capabilities all the same.
            Some(("NoNewPrivs", _)) => point != "createContainer",
            _ => true,
        });
        format!("{}\n{state}", lines.collect::<Vec<_>>().join("\n"))
    }
}

fn told_as_by_runc(suite: Suite) {
    let bed = Bed::get(suite);
    for named in [true, false] {
        let mut hooked = Hooked::native(bed, "told", &POINTS, "echo out; exit 5");
        if !named {
            for point in POINTS {
                let hook = &mut hooked.spec["hooks"][point][0];
                hook.as_object_mut().expect("a hook").remove("env");
            }
        }
        let [theirs, ours] = [RUNC, RUNTIME].map(|runtime| {
            let output = hooked.run(runtime).expect(5);
            assert_eq!(output.stdout, "out\n", "{runtime}");
            assert_eq!(hooked.order(), POINTS, "{runtime}");
            POINTS.map(|point| hooked.comparable(point))
        });
        for (point, (theirs, ours)) in POINTS.iter().zip(theirs.into_iter().zip(ours)) {
            // runc 1.1 gives these the program's environment, runc 1.3 none.
            if !named && *point == "createContainer" {
                continue;
            }
            let theirs = match *point {
                "poststart" => theirs.replace(r#""status":"created""#, r#""status":"running""#),
                _ => theirs,
            };
            assert_eq!(theirs, ours, "{point}, environment named: {named}");
        }
    }
}

fn failures(suite: Suite) {
    let bed = Bed::get(suite);
    for runtime in [RUNC, RUNTIME] {
        for (at, point) in POINTS.into_iter().enumerate() {
            let hooked = Hooked::native(bed, "failures", &POINTS, "echo ran; exec sleep 1");
            hooked.fail(point);
            let output = hooked.run(runtime);
            let order = hooked.order();
            if (runtime, point) == (RUNC, "startContainer") {
                assert!(output.status != 0, "{output}");
                continue;
            }
            assert_eq!(order.last().map(String::as_str), Some("poststop"), "{runtime} {point}: {order:?}\n{output}");
            if point == "poststop" {
                assert_eq!(output.stdout, "ran\n", "{runtime}\n{output}");
            } else {
                assert!(output.status != 0, "{runtime} {point}\n{output}");
            }
            if runtime == RUNTIME {
                // Up to the one that fails, and then the last.
                let expected: Vec<_> =
                    POINTS[..=at].iter().filter(|p| **p != "poststop").chain(&["poststop"]).collect();
                assert!(order.iter().eq(expected), "{point}: {order:?}");
                // The runtime spec: it is a warning, and the removal goes on.
                assert_eq!(output.status == 0, point == "poststop", "{point}\n{output}");
                if ["prestart", "createRuntime", "poststart"].contains(&point) {
                    assert!(output.stderr.contains("no luck"), "{point}\n{output}");
                }
                let names = point == "poststop" || output.stderr.to_lowercase().contains("hook");
                assert!(names, "{point}\n{output}");
            }
        }
    }
}

fn timeouts(suite: Suite) {
    let bed = Bed::get(suite);
    for runtime in [RUNC, RUNTIME] {
        for point in OF_HOST {
            let mut hooked = Hooked::native(bed, "timeouts", &["poststop"], "echo ran; exec sleep 1");
            hooked.set(point, json!({ "path": "/bin/sleep", "args": ["sleep", "1234"], "timeout": 1 }));
            let begun = Instant::now();
            let output = hooked.run(runtime);
            assert!(begun.elapsed() < Duration::from_secs(10), "{runtime} {point} after {:?}", begun.elapsed());
            assert!(
                bed.sh("! pgrep --full '[s]leep 1234'").run().status == 0,
                "{runtime}: the hook at {point} goes on"
            );
            if point == "poststop" {
                assert_eq!(output.stdout, "ran\n", "{runtime}\n{output}");
            } else {
                assert!(output.status != 0 && output.stderr.contains("time"), "{runtime} {point}\n{output}");
                assert_eq!(hooked.order(), ["poststop"], "{runtime} {point}");
            }
        }
    }
}

fn of_guests(suite: Suite) {
    let bed = Bed::get(suite);
    let hooked = Hooked::guest(bed, "guests", &OF_GUESTS, "hello");
    assert_eq!(hooked.run(RUNTIME).ok().stdout, "hello\n");
    assert_eq!(hooked.order(), OF_GUESTS);
    for point in OF_GUESTS {
        let state = hooked.state(point);
        let status = match point {
            "poststart" => "running",
            "poststop" => "stopped",
            _ => "creating",
        };
        assert_eq!((&state["id"], &state["status"]), (&json!("guests"), &json!(status)), "{state}");
        assert_eq!(state["annotations"]["org.example.hooked"], "yes", "{state}");
        assert!(state["bundle"].as_str().is_some_and(|bundle| bundle.ends_with("/default/guests")), "{state}");
        let own = if point == "createContainer" { "of its own" } else { "of the host" };
        for kind in ["mnt", "pid", "net", "ipc", "uts"] {
            assert!(hooked.told(point).contains(&format!("{kind} {own}")), "{point}: {}", hooked.told(point));
        }
    }
    // What would run in the container would be the image's.
    let hooked = Hooked::guest(bed, "guests", &POINTS, "hello");
    let refused = hooked.run(RUNTIME).expect(1);
    assert!(refused.stderr.contains("startContainer hook /bin/busybox can't be given"), "{refused}");
    assert!(hooked.order().is_empty(), "{:?}", hooked.order());
    // A guest goes no further than its hooks let it.
    for point in ["createRuntime", "createContainer", "poststart"] {
        let hooked = Hooked::guest(bed, "guests", &OF_GUESTS, "sleep");
        hooked.fail(point);
        let failed = hooked.run(RUNTIME);
        assert!(failed.status != 0 && failed.stderr.contains("hook"), "{point}\n{failed}");
        assert_eq!(hooked.order().last().map(String::as_str), Some("poststop"), "{point}");
    }
}

/// The end is told of when the task is removed, and once.
fn of_a_task_that_is_kept(suite: Suite) {
    let bed = Bed::get(suite);
    for runtime in [RUNC, RUNTIME] {
        let hooked = Hooked::native(bed, "kept", &OF_HOST, "exec sleep 1000");
        hooked.ctr_run(runtime, &["--detach", "--null-io"]).ok();
        let pid = pid_of(bed, "kept");
        assert_eq!(hooked.state("poststart")["pid"], json!(pid), "{runtime}");
        bed.ctr(&["tasks", "kill", "--signal", "KILL", "kept"]).run().ok();
        bed.sh(&format!("timeout 10 sh -c 'while [ -e /proc/{pid} ]; do sleep 0.05; done'")).run().ok();
        assert_eq!(hooked.order(), OF_HOST[..3], "{runtime}");
        bed.ctr(&["tasks", "rm", "kept"]).run().ok();
        assert_eq!(hooked.order(), OF_HOST, "{runtime}");
        bed.ctr(&["containers", "rm", "kept"]).run().ok();
        assert_eq!(hooked.order(), OF_HOST, "{runtime}");
    }
}

/// Whoever cleans up after a daemon runs its hooks.
fn of_a_killed_daemon(suite: Suite) {
    let bed = Bed::get(suite);
    for runtime in [RUNC, RUNTIME] {
        let hooked = Hooked::native(bed, "lost", &OF_HOST, "exec sleep 1000");
        hooked.ctr_run(runtime, &["--detach", "--null-io"]).ok();
        // The brackets keep the pattern from matching the command line that it is in.
        bed.sh("pkill -KILL --full '[c]ontainerd-shim-.* -id lost'").run().ok();
        let deadline = Instant::now() + Duration::from_secs(10);
        while hooked.order() != OF_HOST {
            assert!(Instant::now() < deadline, "{runtime}: {:?}", hooked.order());
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = bed.ctr(&["tasks", "rm", "--force", "lost"]).run();
        bed.ctr(&["containers", "rm", "lost"]).run().ok();
        assert_eq!(hooked.order(), OF_HOST, "{runtime}: once");
    }
}
