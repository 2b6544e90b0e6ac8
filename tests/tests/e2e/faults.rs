//! Registries and disks that fail: an error that says which, soon; a retry that succeeds; and never half a blob.

use std::{
    thread,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Fault, Proxy, Request, Suite, guests, on_every_suite};

use crate::cli::{Lighter, assert_refused};

on_every_suite! {
    a_pull_goes_on_where_the_connection_ended,
    a_pull_goes_on_in_another_process,
    a_killed_pull_leaves_no_half_blob,
    two_pulls_at_once_download_once,
    a_registry_that_always_breaks_off,
    too_many_requests,
    server_errors_that_pass,
    server_errors_that_stay,
    a_blob_that_ends_early,
    a_blob_that_is_another,
    an_upload_that_breaks_off,
    a_dead_registry,
    a_disk_that_fills_while_pulling,
    a_disk_that_fills_while_building,
}

/// Of the module, in bytes: large enough to be cut in two.
const SIZE: usize = 6 << 20;
/// Where it is cut.
const CUT: u64 = 2 << 20;

/// All retries, on a busy machine.
const GIVES_UP_WITHIN: Duration = Duration::from_secs(90);
/// An error that no retry can mend.
const SOON: Duration = Duration::from_secs(20);

fn module() -> Vec<u8> {
    guests::padded(guests::p1("hello"), SIZE)
}

/// An image on the registry, and a proxy before it.
struct Faulty<'bed> {
    bed: &'bed Bed,
    /// Of the module.
    layer: String,
    name: &'static str,
    proxy: Proxy,
}

impl<'bed> Faulty<'bed> {
    #[track_caller]
    fn new(suite: Suite, name: &'static str, fault: Fault, times: usize) -> Faulty<'bed> {
        let bed = Bed::get(suite);
        let lighter = Lighter::new(bed);
        let reference = format!("{}/faults/{name}:1", bed.registry());
        lighter.write("app.wasm", module());
        let built = lighter.json(&["build", "app.wasm", "-t", &reference]);
        let layer = built["layers"][0]["digest"].as_str().expect("a layer").to_owned();
        lighter.run(&["push", &reference]).ok();
        Faulty { bed, layer, name, proxy: Proxy::start(bed, bed.registry(), fault, times) }
    }

    /// Its name behind this registry or proxy.
    fn at(&self, registry: &str) -> String {
        format!("{registry}/faults/{}:1", self.name)
    }

    fn reference(&self) -> String {
        self.at(&self.proxy.address())
    }

    /// The requests of a proxy for the module.
    fn downloads(&self, proxy: &Proxy) -> Vec<Request> {
        let mut requests = proxy.requests();
        requests.retain(|request| request.method == "GET" && request.path.ends_with(&self.layer));
        requests
    }

    /// The error of a pull, after which the store has no trace of the module among its blobs.
    #[track_caller]
    fn assert_pull_refused(&self, lighter: &Lighter<'_>, within: Duration, tells: &[&str]) {
        let start = Instant::now();
        let refused = lighter.cmd(&["pull", &self.reference()]).timeout(GIVES_UP_WITHIN * 2).run();
        let took = start.elapsed();
        assert_refused(refused, tells);
        assert!(took < within, "took {took:?}");
        self.assert_absent(lighter);
    }

    #[track_caller]
    fn assert_absent(&self, lighter: &Lighter<'_>) {
        lighter.assert_whole();
        let module = self.layer.trim_start_matches("sha256:");
        assert!(!lighter.blobs().iter().any(|blob| blob == module), "the module is among the blobs");
        assert_eq!(lighter.json(&["ls"]), serde_json::json!([]));
    }

    /// A pull that succeeds, and its image that runs.
    #[track_caller]
    fn assert_pulls(&self, lighter: &Lighter<'_>, reference: &str) {
        lighter.cmd(&["pull", reference]).timeout(GIVES_UP_WITHIN).run().ok();
        lighter.assert_whole();
        assert_eq!(lighter.run(&["run", reference]).ok().stdout, "hello from wasm\n");
    }
}

/// Panics unless it asks for the rest of a blob, and gets no more than that.
#[track_caller]
fn assert_resumes(request: &Request, at_least: u64) {
    let start = request.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let start: Option<u64> = start.and_then(|(start, _)| start.parse().ok());
    assert!(start.is_some_and(|start| start >= at_least && start <= CUT), "{request:?}");
    assert_eq!(request.status, 206, "{request:?}");
}

fn a_pull_goes_on_where_the_connection_ended(suite: Suite) {
    let faulty = Faulty::new(suite, "cut-once", Fault::Cut(CUT), 1);
    let lighter = Lighter::new(faulty.bed);
    faulty.assert_pulls(&lighter, &faulty.reference());
    let downloads = faulty.downloads(&faulty.proxy);
    assert_eq!((downloads.len(), faulty.proxy.faults_left()), (2, 0), "{downloads:?}");
    assert_resumes(&downloads[1], 1);
}

fn a_pull_goes_on_in_another_process(suite: Suite) {
    let faulty = Faulty::new(suite, "cut-for-long", Fault::Stall(CUT), 1);
    let lighter = Lighter::new(faulty.bed);
    kill_in_mid_blob(&faulty, &lighter);
    // Under another name: it is the blob that counts.
    let sound = Proxy::start(faulty.bed, faulty.bed.registry(), Fault::Stall(CUT), 0);
    faulty.assert_pulls(&lighter, &faulty.at(&sound.address()));
    let downloads = faulty.downloads(&sound);
    assert_eq!(downloads.len(), 1, "{downloads:?}");
    assert_resumes(&downloads[0], CUT / 2);
}

/// Starts a pull, and kills it when most of what the proxy gives has arrived.
#[track_caller]
fn kill_in_mid_blob(faulty: &Faulty<'_>, lighter: &Lighter<'_>) {
    let reference = faulty.reference();
    let pull = lighter.sh(&format!("echo $$; exec lighter pull {reference}")).spawn();
    pull.wait_for("\n");
    let arrived = format!("du -s --block-size=1 {}/store | cut -f 1", lighter.folder());
    let deadline = Instant::now() + SOON;
    loop {
        let bytes: u64 = faulty.bed.sh(&arrived).run().stdout.trim().parse().unwrap_or(0);
        if bytes > CUT / 2 + CUT / 4 {
            break;
        }
        assert!(Instant::now() < deadline, "only {bytes} bytes arrived");
        faulty.assert_absent(lighter);
        thread::sleep(Duration::from_millis(20));
    }
    let pid = pull.stdout();
    faulty.bed.cmd(&["kill", "-9", pid.trim()]).run().ok();
    pull.wait().expect(137);
}

fn a_killed_pull_leaves_no_half_blob(suite: Suite) {
    let faulty = Faulty::new(suite, "killed", Fault::Stall(CUT), 1);
    let lighter = Lighter::new(faulty.bed);
    kill_in_mid_blob(&faulty, &lighter);
    faulty.assert_absent(&lighter);
    lighter.run(&["gc"]).ok();
    let left = lighter.sh("find store -type f -size +64k").run().ok();
    assert_eq!(left.stdout, "");
    faulty.assert_pulls(&lighter, &faulty.reference());
}

fn two_pulls_at_once_download_once(suite: Suite) {
    let faulty = Faulty::new(suite, "at-once", Fault::Stall(CUT), 0);
    let lighter = Lighter::new(faulty.bed);
    let pulls: Vec<_> = (0..4).map(|_| lighter.cmd(&["pull", &faulty.reference()]).spawn()).collect();
    for pull in pulls {
        pull.wait().ok();
    }
    let downloads = faulty.downloads(&faulty.proxy);
    assert_eq!(downloads.len(), 1, "{downloads:?}");
    faulty.assert_pulls(&lighter, &faulty.reference());
}

fn a_registry_that_always_breaks_off(suite: Suite) {
    // So little at a time that it would take for ever.
    let faulty = Faulty::new(suite, "cut-always", Fault::Cut(1000), usize::MAX);
    let lighter = Lighter::new(faulty.bed);
    faulty.assert_pull_refused(&lighter, GIVES_UP_WITHIN, &[&faulty.proxy.address(), &faulty.layer]);
    faulty.assert_pulls(&lighter, &faulty.at(faulty.bed.registry()));
}

fn too_many_requests(suite: Suite) {
    const WAIT: Duration = Duration::from_secs(3);
    let faulty = Faulty::new(suite, "too-many", Fault::Status(429, Some(3)), 1);
    let start = Instant::now();
    faulty.assert_pulls(&Lighter::new(faulty.bed), &faulty.reference());
    assert!(start.elapsed() >= WAIT, "took {:?}", start.elapsed());
}

fn server_errors_that_pass(suite: Suite) {
    let faulty = Faulty::new(suite, "two-errors", Fault::Status(500, None), 2);
    let lighter = Lighter::new(faulty.bed);
    let pulled = lighter.run(&["pull", &faulty.reference()]).ok();
    // Whoever waits is told why.
    assert!(pulled.stderr.contains("500"), "{pulled}");
    faulty.assert_pulls(&lighter, &faulty.reference());
    assert_eq!(faulty.proxy.faults_left(), 0);

    let proxy = Proxy::start(faulty.bed, faulty.bed.registry(), Fault::Status(503, None), 2);
    let reference = format!("{}/faults/pushed-late:1", proxy.address());
    lighter.build(&guests::padded(module(), 5), &reference, &[]);
    lighter.run(&["push", &reference]).ok();
    assert_eq!(proxy.faults_left(), 0);
    faulty.assert_pulls(&Lighter::new(faulty.bed), &reference);
}

fn server_errors_that_stay(suite: Suite) {
    let faulty = Faulty::new(suite, "errors", Fault::Status(500, None), usize::MAX);
    let lighter = Lighter::new(faulty.bed);
    faulty.assert_pull_refused(&lighter, GIVES_UP_WITHIN, &["500", &faulty.proxy.address()]);
    // What the client itself did wrong doesn't get better by doing it again.
    let faulty = Faulty::new(suite, "teapot", Fault::Status(418, None), usize::MAX);
    faulty.assert_pull_refused(&lighter, SOON, &["418", &faulty.proxy.address()]);
    assert_eq!(faulty.proxy.requests().len(), 1, "{:?}", faulty.proxy.requests());
}

fn a_blob_that_ends_early(suite: Suite) {
    let once = Faulty::new(suite, "short", Fault::Short, 1);
    let lighter = Lighter::new(once.bed);
    once.assert_pulls(&lighter, &once.reference());
    let always = Faulty::new(suite, "always-short", Fault::Short, usize::MAX);
    // Each answer is the first half of what was asked for: there is progress, down to what is small enough to get through.
    let lighter = Lighter::new(always.bed);
    let pulled = lighter.cmd(&["pull", &always.reference()]).timeout(GIVES_UP_WITHIN).run();
    lighter.assert_whole();
    if pulled.status != 0 {
        assert_refused(pulled, &[&always.layer]);
        always.assert_absent(&lighter);
    }
}

fn a_blob_that_is_another(suite: Suite) {
    let faulty = Faulty::new(suite, "corrupt", Fault::Corrupt, usize::MAX);
    let lighter = Lighter::new(faulty.bed);
    faulty.assert_pull_refused(&lighter, GIVES_UP_WITHIN, &[&faulty.layer]);
    // Nor is it the beginning of the next try.
    faulty.assert_pulls(&lighter, &faulty.at(faulty.bed.registry()));
}

fn an_upload_that_breaks_off(suite: Suite) {
    let bed = Bed::get(suite);
    let proxy = Proxy::start(bed, bed.registry(), Fault::CutUpload(CUT), 1);
    let reference = format!("{}/faults/cut-upload:1", proxy.address());
    let lighter = Lighter::new(bed);
    // One that the registry doesn't know yet.
    let digest = lighter.build(&guests::padded(module(), 1), &reference, &[]);
    let pushed = lighter.run(&["push", &reference]).ok();
    assert!(pushed.stdout.contains(&digest), "{pushed}");
    assert_eq!(proxy.faults_left(), 0, "{:?}", proxy.requests());
    let other = Lighter::new(bed);
    assert_eq!(other.json(&["pull", &reference])["digest"], digest.as_str());
    other.assert_whole();

    let proxy = Proxy::start(bed, bed.registry(), Fault::CutUpload(1000), usize::MAX);
    let reference = format!("{}/faults/never-up:1", proxy.address());
    lighter.build(&guests::padded(module(), 2), &reference, &[]);
    let refused = lighter.cmd(&["push", &reference]).timeout(GIVES_UP_WITHIN).run();
    assert_refused(refused, &[&proxy.address()]);
    // The manifest goes last: what can't be had whole has no name there.
    let there = format!("{}/faults/never-up:1", bed.registry());
    assert_refused(lighter.run(&["pull", &there]), &["not found"]);
}

fn a_dead_registry(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let reference = "127.0.0.1:9/dead:1";
    lighter.build(&guests::wat("hello"), reference, &[]);
    for command in ["pull", "push"] {
        let start = Instant::now();
        assert_refused(lighter.run(&[command, reference]), &["127.0.0.1:9"]);
        assert!(start.elapsed() < SOON, "{command} took {:?}", start.elapsed());
    }
    assert_refused(lighter.run(&["pull", "no-such-host.test/dead:1"]), &["no-such-host.test"]);
}

/// A store on a disk of its own, of so many MiB.
fn with_disk<'bed>(bed: &'bed Bed, mebibytes: u32) -> Lighter<'bed> {
    let lighter = Lighter::new(bed);
    lighter.sh(&format!("mkdir store; mount -t tmpfs -o size={mebibytes}m disk store")).run().ok();
    lighter
}

/// As a user would who has deleted something else.
fn enlarge_disk(lighter: &Lighter<'_>) {
    lighter.sh("mount -o remount,size=64m store").run().ok();
}

fn a_disk_that_fills_while_pulling(suite: Suite) {
    let faulty = Faulty::new(suite, "full", Fault::Cut(CUT), 0);
    let lighter = with_disk(faulty.bed, 4);
    faulty.assert_pull_refused(&lighter, SOON, &["No space left", "store"]);
    // Nor is the disk still full of what was of no use.
    let used = lighter.sh("du -s --block-size=1K store | cut -f 1").run().ok();
    assert!(used.stdout.trim().parse::<u64>().expect("a number") < 256, "{used}");
    enlarge_disk(&lighter);
    faulty.assert_pulls(&lighter, &faulty.reference());
    lighter.sh("umount store").run().ok();
}

fn a_disk_that_fills_while_building(suite: Suite) {
    let bed = Bed::get(suite);
    let full = with_disk(bed, 4);
    full.write("app.wasm", module());
    let archive = Lighter::new(bed);
    archive.build(&module(), "archived:1", &[]);
    archive.run(&["save", "archived:1", "-o", "archived.tar"]).ok();
    let archived = format!("{}/archived.tar", archive.folder());
    for arguments in [&["build", "app.wasm", "-t", "full:1"][..], &["load", "-i", &archived]] {
        assert_refused(full.run(arguments), &["No space left"]);
        full.assert_whole();
        assert_eq!(full.json(&["ls"]), serde_json::json!([]));
        let left = full.sh("find store -type f -size +64k").run().ok();
        assert_eq!(left.stdout, "", "{arguments:?}");
    }
    enlarge_disk(&full);
    full.run(&["load", "-i", &archived]).ok();
    assert_eq!(full.run(&["run", "archived:1"]).ok().stdout, "hello from wasm\n");
    full.sh("umount store").run().ok();
    // And where the archive goes.
    archive.sh("mkdir small; mount -t tmpfs -o size=1m disk small").run().ok();
    assert_refused(archive.run(&["save", "archived:1", "-o", "small/archived.tar"]), &["No space left"]);
    assert_eq!(archive.sh("ls -A small").run().ok().stdout, "");
    archive.sh("umount small").run().ok();
}
