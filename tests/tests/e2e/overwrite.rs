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

/// An image whose `/bin/self` is whatever executes it. A runner that is called so takes itself for one that is to become a hook,
/// and reads the container's state from its standard input for as long as that is open.
fn image(bed: &Bed) -> Image {
    let busybox = std::fs::read(bed.path("/bin/busybox")).expect("the bed's busybox can be read");
    let image = Image::new("docker.io/library/overwrite:latest")
        .of_host()
        .file("/bin/busybox", busybox)
        .file("/attack", ATTACK)
        .file("/bin/self", "#!/proc/self/exe hook\n")
        .folder("/proc")
        .env("PATH", "/bin");
    let applets = ["cut", "kill", "readlink", "sh", "sleep"];
    applets.iter().fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox"))
}

/// The command of `ctr` for a container's process that is a runner, and stays one: its standard input has no end.
fn held(command: &str) -> String {
    format!("[ -p /srv/endless ] || mkfifo /srv/endless; ctr {command} self bundle program name <>/srv/endless")
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
    let attack = bed.ctr(&[&run[..], &["sh", "/attack"]].concat()).spawn();
    attack.wait_for("ready\n");
    // The attack ends it.
    bed.sh(&held("tasks exec --exec-id victim overwrite")).run();
    let output = attack.wait();
    assert!(!output.stdout.contains("written"), "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert_eq!(digest(&bed), before);
    bed.assert_clean();
}

fn by_the_init(suite: Suite) {
    let bed = Bed::fresh(suite);
    let (image, before) = prepare(&bed);
    bed.sh(&held(&format!("run --detach --runtime {} {} overwrite", shim(), image.name()))).run().ok();
    // While it runs, nobody could write to it anyway: the error is another then.
    let write = ["tasks", "exec", "--exec-id", "writer", "overwrite", "sh", "-c", "echo overwritten >/proc/1/exe"];
    let output = bed.ctr(&write).run();
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    assert_eq!(digest(&bed), before);
    bed.ctr(&["tasks", "rm", "--force", "overwrite"]).run();
    bed.ctr(&["containers", "rm", "overwrite"]).run().ok();
    bed.assert_clean();
}
