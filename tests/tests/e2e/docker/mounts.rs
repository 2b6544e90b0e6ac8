//! Volumes by name, `--mount` and `--tmpfs`, and `--init`.

use lighter_tests::{Bed, Output, Suite};

use super::kind::{Kind, Program, on_every_kind};

on_every_kind! {
    volume_by_name,
    mounts_of_each_type,
    with_an_init,
}

/// Runs a container to its end, and removes it.
#[track_caller]
fn run(bed: &Bed, kind: Kind, name: &str, flags: &[&str], program: Program) -> Output {
    kind.run(bed, &kind.name(name), &[&["--rm"], flags].concat(), program).run()
}

/// What one container wrote, another reads, whatever kind it is of.
fn volume_by_name(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let volume = kind.name("shared-volume");
    // A new volume is given what the image has at that place.
    let mount = format!("{volume}:/data");
    let written = run(bed, kind, "volume", &["--volume", &mount], Program::Write("/data/new", "kept"));
    assert_eq!(written.ok().stdout, "done\n");
    for reader in Kind::ALL {
        let name = format!("volume-of-{}", kind.slug());
        for (path, text) in [("/data/new", "kept"), ("/data/note", "of the image")] {
            let read = run(bed, reader, &name, &["--volume", &format!("{mount}:ro")], Program::Read(path)).ok();
            assert_eq!(read.stdout.trim(), text, "{reader:?}");
        }
    }
    bed.docker(&["volume", "rm", &volume]).run().ok();
}

fn mounts_of_each_type(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    let folder = format!("/srv/mount-{}", kind.slug());
    bed.sh(&format!("mkdir -p {folder}; echo of the host >{folder}/file")).run().ok();
    let try_to = |mount: &str, program| run(bed, kind, "mount", &["--read-only", "--mount", mount], program);
    let bind = format!("type=bind,source={folder},target=/mnt");
    assert_eq!(try_to(&bind, Program::Read("/mnt/file")).ok().stdout.trim(), "of the host");
    try_to(&bind, Program::Write("/mnt/new", "x")).ok();
    try_to(&format!("{bind},readonly"), Program::Write("/mnt/new", "x")).expect(1);
    let one_file = format!("type=bind,source={folder}/file,target=/data/note,readonly");
    assert_eq!(try_to(&one_file, Program::Read("/data/note")).ok().stdout.trim(), "of the host");
    try_to(&one_file, Program::Write("/data/note", "x")).expect(1);
    let tmpfs = "type=tmpfs,target=/scratch,tmpfs-size=64k";
    try_to(tmpfs, Program::Write("/scratch/new", "x")).ok();
    try_to(tmpfs, Program::Write("/elsewhere", "x")).expect(1);
    // Docker makes the folder of a volume, not that of a bind mount.
    let missing = try_to("type=bind,source=/srv/nowhere,target=/mnt", Program::Hello).expect(125);
    assert!(missing.stderr.contains("bind source path does not exist"), "{missing}");
    assert_eq!(bed.sh(&format!("ls {folder}")).run().ok().stdout, "file\nnew\n");
}

/// Docker's init comes before a native program, and is left out for a guest: there is nothing for it to reap.
fn with_an_init(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    assert_eq!(run(bed, kind, "init", &["--init"], Program::Hello).ok().stdout, "hello from wasm\n");
    run(bed, kind, "init", &["--init"], Program::Exit("7")).expect(7);
    // SIGTERM goes on to the program that is behind it, and ends a guest.
    let stay = kind.ready(bed, "init-stopped", &["--init"]);
    let processes = stay.docker("top", &[]).ok();
    assert_eq!(processes.stdout.contains("docker-init"), kind != Kind::Guest, "{processes}");
    stay.docker("stop", &[]).ok();
    assert_eq!(stay.inspect("{{.State.ExitCode}}"), "143");
}
