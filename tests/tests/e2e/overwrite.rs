//! A container's root that tries to write to the runner's program on the host, which runs in the container for a moment, or
//! for longer where the image's entrypoint is a script for `/proc/self/exe` (CVE-2019-5736).

use lighter_tests::{Bed, Image, Suite, on_every_suite};

on_every_suite! { by_a_process_that_joins, by_the_init }

/// The shim and its runners, where they can be written to: the testbed's own are mounted read-only.
const INSTALLED: &str = "/opt/overwrite";

/// Takes hold of the first process that runs no program of the image, ends it, and writes to its file.
const ATTACK: &str = r#"
echo ready
while true; do
    for folder in /proc/[0-9]*; do
        case $(readlink $folder/exe) in
        '' | */busybox) ;;
        *)
            exec 9<$folder/exe
            kill -9 ${folder#/proc/}
            while [ "$(cut -d' ' -f3 $folder/stat 2>/dev/null)" = S ]; do sleep 0.05; done
            sleep 0.2
            echo overwritten >/proc/self/fd/9 && echo written
            exit
            ;;
        esac
    done
    sleep 0.05
done
"#;

/// An image whose `/bin/self` is whatever executes it, and makes that wait in the dynamic loader, before its first line: what
/// is to be loaded with it is a FIFO.
fn image(bed: &Bed) -> Image {
    let read = |path: &str| std::fs::read(bed.path(path)).unwrap_or_else(|error| panic!("{path} of the bed: {error}"));
    let listed = bed.sh(&format!("ldd {INSTALLED}/lighter-native")).run().ok().stdout;
    let loader = listed.split_whitespace().find(|word| word.starts_with('/') && word.contains("/ld-"));
    let loader = loader.expect("the runner has a dynamic loader");
    let resolved = bed.sh(&format!("readlink -f {loader}")).run().ok().stdout;
    let image = Image::new("docker.io/library/overwrite:latest")
        .of_host()
        .file("/bin/busybox", read("/bin/busybox"))
        .file(loader, read(resolved.trim()))
        .file("/attack", ATTACK)
        .file("/bin/self", "#!/proc/self/exe\n")
        .folder("/proc")
        .env("PATH", "/bin")
        .env("LD_PRELOAD", "/fifo");
    let applets = ["cut", "kill", "mknod", "readlink", "sh", "sleep"];
    applets.iter().fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox"))
}

/// Installs the runners anew, and imports the image. Returns it, and the digest of the runner's program.
fn prepare(bed: &Bed) -> (Image, String) {
    bed.sh(&format!("rm -rf {INSTALLED} && cp -a /usr/local/bin {INSTALLED}")).run().ok();
    let image = image(bed);
    bed.import(&image);
    (image, digest(bed))
}

fn digest(bed: &Bed) -> String {
    bed.sh(&format!("sha256sum {INSTALLED}/lighter-native")).run().ok().stdout
}

fn shim() -> String {
    format!("{INSTALLED}/containerd-shim-lighter-v1")
}

fn by_a_process_that_joins(suite: Suite) {
    let bed = Bed::fresh(suite);
    let (image, before) = prepare(&bed);
    let run = ["run", "--rm", "--runtime", &shim(), image.name(), "overwrite"];
    let attack = bed.ctr(&[&run[..], &["sh", "-c", "mknod /fifo p && exec sh /attack"]].concat()).spawn();
    attack.wait_for("ready\n");
    // The attack ends it.
    bed.ctr(&["tasks", "exec", "--exec-id", "victim", "overwrite", "self"]).run();
    let output = attack.wait();
    assert!(!output.stdout.contains("written"), "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert_eq!(digest(&bed), before);
    bed.assert_clean();
}

fn by_the_init(suite: Suite) {
    let bed = Bed::fresh(suite);
    let (image, before) = prepare(&bed);
    bed.sh("mkfifo /srv/fifo").run().ok();
    let fifo = ["--mount", "type=bind,src=/srv/fifo,dst=/fifo,options=rbind:rw"];
    let run = ["run", "--detach", "--null-io", "--runtime", &shim()];
    bed.ctr(&[&run[..], &fifo, &[image.name(), "overwrite", "self"]].concat()).run().ok();
    // While it runs, nobody could write to it anyway: the error is another then.
    let write = ["tasks", "exec", "--exec-id", "writer", "overwrite", "sh", "-c", "echo overwritten >/proc/1/exe"];
    let output = bed.ctr(&write).run();
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert_eq!(digest(&bed), before);
    bed.ctr(&["tasks", "rm", "--force", "overwrite"]).run();
    bed.ctr(&["containers", "rm", "overwrite"]).run().ok();
    bed.assert_clean();
}
