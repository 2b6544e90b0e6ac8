//! Logging programs, as nerdctl has them: `ctr run --log-uri binary://…`, of guests, native programs and by runc.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use lighter_tests::{Bed, Image, PLATFORM, RUNTIME, Suite, guests::p1, on_every_suite};

on_every_suite! {
    of_guests,
    of_native_programs,
    of_runc,
    one_that_is_not_there,
}

const RUNC: &str = "io.containerd.runc.v2";
/// Says whom it serves, and writes each stream into a file of its own. It is asked to end with the container, and goes on
/// until it has read all.
const PROGRAM: &str = r#"#!/bin/busybox sh
trap '' TERM
echo "$CONTAINER_NAMESPACE $CONTAINER_ID $1" >"$2"
/bin/busybox cat <&3 >"$2.out" 5>&- &
/bin/busybox cat <&4 >"$2.err" 5>&- &
exec 5>&-
wait
echo end >>"$2"
"#;

fn of_guests(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/logged:guest", p1("hello"));
    is_logged(bed, &image, &["--runtime", RUNTIME, "--platform", PLATFORM], [], "hello from wasm\n", "and to stderr\n");
}

fn of_native_programs(suite: Suite) {
    is_logged(Bed::get(suite), &busybox(suite), &["--runtime", RUNTIME], SCRIPT, "out\n", "err\n");
}

fn of_runc(suite: Suite) {
    is_logged(Bed::get(suite), &busybox(suite), &["--runtime", RUNC], SCRIPT, "out\n", "err\n");
}

const SCRIPT: [&str; 4] = ["/bin/busybox", "sh", "-c", "echo out; echo err >&2"];

fn busybox(suite: Suite) -> Image {
    let program = fs::read(Bed::get(suite).path("/bin/busybox")).expect("busybox of the bed");
    Image::new("docker.io/library/logged:native").of_host().file_with_mode("/bin/busybox", program, 0o755)
}

#[track_caller]
fn is_logged<const N: usize>(bed: &Bed, image: &Image, flags: &[&str], args: [&str; N], out: &str, err: &str) {
    bed.import(image);
    let id = format!("logged-{}", flags[1].replace('.', "-") + image.name().rsplit(':').next().unwrap_or_default());
    let (program, log) = (format!("/run/bed/{id}.sh"), format!("/run/bed/{id}.log"));
    fs::write(bed.path(&program), PROGRAM).expect("the logging program");
    bed.sh(&format!("chmod 755 {program}")).run().ok();
    let uri = format!("binary://{program}?to={}", log.replace('/', "%2F"));
    let run = [&["run", "--rm", "--log-uri", &uri], flags, &[image.name(), &id], &args].concat();
    bed.ctr(&run).run().ok();
    let read = |path: &str| fs::read_to_string(bed.path(path)).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !read(&log).ends_with("end\n") {
        assert!(Instant::now() < deadline, "the logging program goes on: {:?}", read(&log));
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(read(&log), format!("default {id} to\nend\n"));
    assert_eq!((read(&format!("{log}.out")).as_str(), read(&format!("{log}.err")).as_str()), (out, err));
    bed.assert_gone(&id);
}

fn one_that_is_not_there(suite: Suite) {
    let bed = Bed::get(suite);
    let image = Image::wasm("docker.io/library/logged:nobody", p1("hello"));
    bed.import(&image);
    let run = ["run", "--rm", "--log-uri", "binary:///no/such/logger", "--runtime", RUNTIME, "--platform", PLATFORM];
    let refused = bed.ctr(&[&run[..], &[image.name(), "logged-nobody"]].concat()).run().expect(1);
    assert!(refused.stderr.contains("start logging program /no/such/logger"), "{refused}");
    bed.assert_gone("logged-nobody");
}
