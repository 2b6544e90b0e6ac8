//! AppArmor: the profile that Docker names is entered by everything in a container.

use std::{fs, io};

use lighter_tests::{Bed, Suite};

use super::kind::{Everyday, Kind, Program, on_every_kind};

on_every_kind! { dockers_own, none, a_persons_own, one_that_is_not_loaded }

/// Whether there is any; says where not.
fn is_there(bed: &Bed) -> bool {
    let there = bed.path("/sys/kernel/security/apparmor/profiles").exists();
    if !there {
        eprintln!("skipped: this bed has no AppArmor (`make test-v2` has)");
    }
    there
}

/// What the kernel confines each process of a container by. One may have ended meanwhile.
#[track_caller]
fn confined_by(container: &Everyday<'_>) -> Vec<String> {
    let top = container.bed.docker(&["top", &container.name, "-eo", "pid"]).run().ok().stdout;
    let profile = |pid: &str| {
        let path = container.bed.path(format!("/proc/{pid}/attr/current"));
        match fs::read_to_string(path) {
            Ok(profile) => Some(profile.trim_end_matches(['\n', '\0']).to_owned()),
            // While it is read, too (ESRCH).
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => None,
            Err(error) => panic!("profile of process {pid}: {error}"),
        }
    };
    top.lines().skip(1).filter_map(|pid| profile(pid.trim())).collect()
}

/// Of the init and of a command beside it.
#[track_caller]
fn assert_confined_by(container: &Everyday<'_>, expected: &str) {
    let command = container.exec(&[], Program::Stay).spawn();
    command.wait_for("ready\n");
    let profiles = confined_by(container);
    assert!(profiles.len() > 1, "{profiles:?}");
    assert!(profiles.iter().all(|profile| profile == expected), "{profiles:?}");
}

fn dockers_own(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    if is_there(bed) {
        assert_confined_by(&kind.ready(bed, "apparmor", &[]), "docker-default (enforce)");
    }
}

fn none(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    if is_there(bed) {
        let flags = ["--security-opt", "apparmor=unconfined"];
        assert_confined_by(&kind.ready(bed, "unconfined", &flags), "unconfined");
    }
}

fn a_persons_own(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    if !is_there(bed) {
        return;
    }
    // Nobody else's container may read its note.
    let profile = "profile of-a-test flags=(attach_disconnected,mediate_deleted) {\n  file,\n  network,\n  signal,\n  \
                   ptrace,\n  deny /data/note r,\n}\n";
    bed.cmd(&["apparmor_parser", "--replace"]).stdin(profile).run().ok();
    let flags = ["--security-opt", "apparmor=of-a-test"];
    let container = kind.ready(bed, "confined", &flags);
    assert_confined_by(&container, "of-a-test (enforce)");
    let denied = container.executed(&[], Program::Read("/data/note"));
    assert_ne!(denied.status, 0, "{denied}");
    let name = format!("{}-init", kind.name("confined"));
    let denied = kind.run(bed, &name, &[&["--rm"], &flags[..]].concat(), Program::Read("/data/note")).run();
    assert_ne!(denied.status, 0, "{denied}");
    kind.run(bed, &name, &["--rm"], Program::Read("/data/note")).run().ok();
}

fn one_that_is_not_loaded(suite: Suite, kind: Kind) {
    let bed = Bed::get(suite);
    if !is_there(bed) {
        return;
    }
    let name = kind.name("not-loaded");
    let flags = ["--rm", "--security-opt", "apparmor=no-such-profile"];
    let refused = kind.run(bed, &name, &flags, Program::Hello).run();
    assert!(refused.status != 0 && refused.stdout.is_empty(), "{refused}");
    // runc does not say which.
    let expected = if kind == Kind::Runc { "apparmor profile" } else { "no-such-profile" };
    assert!(refused.stderr.contains(expected), "{refused}");
}
