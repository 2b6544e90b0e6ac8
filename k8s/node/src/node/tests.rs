//! Whole runs over trees laid out like the distributions', with a containerd that merges files as the real ones do.

mod bench;
mod fake;
mod odd;
mod symptoms;

use std::{
    cell::{Cell, RefCell},
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use super::{Node, now};
use crate::{Error, daemon::Running, programs::Programs};
use bench::{Bench, V2, cases, put};
use fake::Fake;

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn on_every_distribution_it_comes_and_goes_without_a_trace() {
    for case in cases() {
        let bench = Bench::new(case);
        let name = bench.case.name;
        let before = bench.tree();
        let report = bench.install(0).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.ready && report.changed, "{name}: {report:?}");
        assert_eq!(report.handlers, ["lighter", "lighter-wasmtime", "lighter-wamr"], "{name}");
        let written: Vec<_> = report.files.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(written, bench.case.written, "{name}");
        assert_eq!(bench.fake.restarts.get(), 1, "{name}");
        let known = bench.fake.known.borrow().clone().unwrap();
        assert!(known.contains(&"lighter-wamr".to_owned()) && known.contains(&"runc".to_owned()), "{name}: {known:?}");
        // Again: nothing is to be done.
        let installed = bench.tree();
        let report = bench.install(0).unwrap();
        assert!(report.ready && !report.changed, "{name}: {report:?}");
        assert_eq!((bench.fake.restarts.get(), bench.tree()), (1, installed), "{name}");
        assert!(bench.status().ready, "{name}: {:?}", bench.status());
        // Another build: no restart.
        let report = bench.install(1).unwrap();
        assert!(report.ready && report.changed && report.versions.len() == 1, "{name}: {report:?}");
        assert_eq!(bench.fake.restarts.get(), 1, "{name}");
        let report = bench.uninstall().unwrap();
        assert!(!report.ready && report.changed && report.notes.is_empty(), "{name}: {report:?}");
        assert_eq!(bench.tree(), before, "{name}");
        assert!(!bench.fake.known.borrow().as_ref().unwrap().contains(&"lighter".to_owned()), "{name}");
        assert!(!bench.uninstall().unwrap().changed, "{name}");
    }
}

#[test]
fn the_cgroup_driver_and_the_pull_are_the_nodes() {
    for (name, systemd, pull) in [
        ("containerd 1.7", false, false),
        ("containerd 2.0", true, false),
        ("containerd 2.1", true, true),
        ("k3s on 2.1", true, true),
    ] {
        let bench = Bench::of(name);
        let report = bench.install(0).unwrap();
        let text = bench.fake.host.read_text(&report.files[0]).unwrap().unwrap();
        assert_eq!(text.contains("SystemdCgroup = true"), systemd, "{name}: {text}");
        assert_eq!(text.contains("use_local_image_pull = true"), pull, "{name}: {text}");
    }
}

/// Stops a run at each of its steps, as if the machine went down there.
fn crash_at_every_step(
    bench: impl Fn() -> Bench,
    prepare: impl Fn(&Bench),
    run: impl Fn(&Node<'_, &Fake>, &Bench),
    then: impl Fn(&Bench, &str),
) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut crashed = 0;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        for stop in 0.. {
            let bench = bench();
            prepare(&bench);
            let (count, last) = (Cell::new(0), RefCell::new(String::new()));
            let step = |what: &str| {
                last.replace(what.to_owned());
                if count.replace(count.get() + 1) == stop {
                    panic!("crash");
                }
            };
            let node = bench.node(&step);
            if panic::catch_unwind(AssertUnwindSafe(|| run(&node, &bench))).is_ok() {
                break;
            }
            crashed += 1;
            then(&bench, &last.borrow());
        }
    }));
    panic::set_hook(hook);
    if let Err(failed) = outcome {
        // Its message was not printed.
        eprintln!("{}", failed.downcast_ref::<String>().map_or("", String::as_str));
        panic::resume_unwind(failed);
    }
    assert!(crashed >= 4, "only {crashed} steps");
}

#[test]
fn a_crash_at_any_step_of_an_installation_is_gone_on_from() {
    for name in ["containerd 1.7", "containerd 2.1", "containerd 2.2", "k3s on 1.7", "k0s"] {
        let expected = Bench::of(name);
        let before = expected.tree();
        expected.install(0).unwrap();
        let expected = expected.tree();
        let run = |node: &Node<'_, &Fake>, bench: &Bench| {
            block(node.install(bench.builds[0].path(), "lighter")).unwrap();
        };
        // Installed after all.
        crash_at_every_step(
            || Bench::of(name),
            |_| {},
            run,
            |bench, step| {
                let report =
                    bench.install(0).unwrap_or_else(|error| panic!("{name}: after a crash at {step:?}: {error}"));
                assert!(report.ready, "{name}: {step:?}: {report:?}");
                assert_eq!(bench.tree(), expected, "{name}: {step:?}");
                bench.uninstall().unwrap();
                assert_eq!(bench.tree(), before, "{name}: {step:?}");
            },
        );
        // Or taken away.
        crash_at_every_step(
            || Bench::of(name),
            |_| {},
            run,
            |bench, step| {
                bench.uninstall().unwrap_or_else(|error| panic!("{name}: after a crash at {step:?}: {error}"));
                assert_eq!(bench.tree(), before, "{name}: {step:?}");
                assert!(
                    !bench.fake.known.borrow().as_ref().unwrap().contains(&"lighter".to_owned()),
                    "{name}: {step:?}"
                );
            },
        );
    }
}

#[test]
fn a_crash_at_any_step_of_an_upgrade_or_a_removal_is_gone_on_from() {
    for name in ["containerd 1.7", "containerd 2.1", "k3s on 1.7"] {
        let before = Bench::of(name).tree();
        let prepare = |bench: &Bench| {
            bench.install(0).unwrap();
        };
        let upgrade = |node: &Node<'_, &Fake>, bench: &Bench| {
            block(node.install(bench.builds[1].path(), "lighter")).unwrap();
        };
        crash_at_every_step(
            || Bench::of(name),
            prepare,
            upgrade,
            |bench, step| {
                let report =
                    bench.install(1).unwrap_or_else(|error| panic!("{name}: after a crash at {step:?}: {error}"));
                assert!(report.ready && report.versions.len() == 1, "{name}: {step:?}: {report:?}");
                assert_eq!(bench.fake.restarts.get(), 1, "{name}: {step:?}");
                bench.uninstall().unwrap();
                assert_eq!(bench.tree(), before, "{name}: {step:?}");
            },
        );
        let remove = |node: &Node<'_, &Fake>, _: &Bench| {
            block(node.uninstall(false)).unwrap();
        };
        crash_at_every_step(
            || Bench::of(name),
            prepare,
            remove,
            |bench, step| {
                bench.uninstall().unwrap_or_else(|error| panic!("{name}: after a crash at {step:?}: {error}"));
                assert_eq!(bench.tree(), before, "{name}: {step:?}");
            },
        );
        // What was being removed is not what is gone back to.
        crash_at_every_step(
            || Bench::of(name),
            prepare,
            remove,
            |bench, step| {
                bench.fake.fails.borrow_mut().push("lighter b".to_owned());
                bench.install(1).unwrap_err();
                let came_back = bench.status().ready;
                assert_eq!(came_back, step == "write the journal", "{name}: {step:?}: {:?}", bench.status());
                if !came_back {
                    assert_eq!(bench.tree(), before, "{name}: {step:?}");
                }
            },
        );
        crash_at_every_step(
            || Bench::of(name),
            prepare,
            remove,
            |bench, step| {
                let report =
                    bench.install(1).unwrap_or_else(|error| panic!("{name}: after a crash at {step:?}: {error}"));
                assert!(report.ready, "{name}: {step:?}: {report:?}");
                bench.uninstall().unwrap();
                assert_eq!(bench.tree(), before, "{name}: {step:?}");
            },
        );
    }
}

#[test]
fn what_does_not_work_is_undone() {
    for case in cases() {
        let bench = Bench::new(case);
        let name = bench.case.name;
        let before = bench.tree();
        let known = bench.fake.known.borrow().clone();
        bench.fake.fails.borrow_mut().push("lighter-wamr".to_owned());
        // The runner of that name runs; the handler doesn't.
        bench.fake.fails.borrow_mut().push("lighter".to_owned());
        bench.fake.fails.borrow_mut().retain(|fails| fails != "lighter-wamr");
        let error = bench.install(0).unwrap_err();
        assert!(
            error.to_string().contains("the handler \"lighter\" does not answer: exec format error"),
            "{name}: {error}"
        );
        assert_eq!((bench.tree(), bench.fake.known.borrow().clone()), (before.clone(), known.clone()), "{name}");
        bench.fake.fails.borrow_mut().clear();
        bench.fake.stubborn.set(1);
        let error = bench.install(0).unwrap_err();
        assert!(matches!(error, Error::Restart { .. }), "{name}: {error}");
        assert_eq!((bench.tree(), bench.fake.known.borrow().clone()), (before.clone(), known), "{name}");
        bench.fake.stubborn.set(2);
        let error = bench.install(0).unwrap_err();
        assert!(matches!(error, Error::NotUndone { .. }), "{name}: {error}");
        // Its files are as they were all the same, and the next try succeeds.
        assert!(bench.install(0).unwrap().ready, "{name}");
        bench.uninstall().unwrap();
        assert_eq!(bench.tree(), before, "{name}");
    }
}

#[test]
fn a_failed_upgrade_leaves_what_was_there() {
    let bench = Bench::of("containerd 2.1");
    let old = bench.install(0).unwrap();
    let installed = bench.tree();
    bench.fake.fails.borrow_mut().push("lighter-wasmtime".to_owned());
    let error = bench.install(1).unwrap_err();
    assert!(matches!(error, Error::Program { .. }), "{error}");
    assert_eq!(bench.tree(), installed);
    bench.fake.fails.replace(vec!["lighter-wasmedge".to_owned(), "lighter".to_owned()]);
    let error = bench.install(1).unwrap_err();
    assert!(matches!(error, Error::Handler { .. }), "{error}");
    assert_eq!(bench.status().version, old.version);
    // With an engine more, the configuration changes as well, and comes back.
    bench.fake.fails.replace(vec!["lighter".to_owned()]);
    let error = bench.install(1).unwrap_err();
    assert!(matches!(error, Error::NotUndone { .. } | Error::Handler { .. }), "{error}");
    bench.fake.fails.replace(vec!["lighter-wasmedge".to_owned()]);
    assert!(bench.install(0).unwrap().ready);
}

#[test]
fn an_engine_more_gets_a_handler_and_one_less_loses_it() {
    let bench = Bench::of("containerd 1.7");
    let before = bench.tree();
    bench.install(0).unwrap();
    bench.fake.fails.borrow_mut().clear();
    let report = bench.install(0).unwrap();
    assert_eq!(report.handlers.last().unwrap(), "lighter-wasmedge");
    bench.fake.fails.borrow_mut().push("lighter-wasmedge".to_owned());
    assert_eq!(bench.install(0).unwrap().handlers.len(), 3);
    assert!(!bench.fake.known.borrow().as_ref().unwrap().contains(&"lighter-wasmedge".to_owned()));
    bench.uninstall().unwrap();
    assert_eq!(bench.tree(), before);
}

#[test]
fn programs_stay_as_long_as_pods_run_by_them() {
    let bench = Bench::of("containerd 1.7");
    let first = bench.install(0).unwrap().version.unwrap();
    let pod = Running { handler: "lighter-wamr".to_owned(), started: now() };
    bench.fake.pods.borrow_mut().push(pod);
    let report = bench.install(1).unwrap();
    assert_eq!((report.versions.len(), &report.versions[0]), (2, &first));
    assert!(bench.fake.host.exists(format!("/opt/lighter/versions/{first}/lighter-wamr")));
    let error = bench.uninstall().unwrap_err();
    assert!(matches!(error, Error::InUse(1)), "{error}");
    assert!(bench.status().ready);
    bench.fake.pods.borrow_mut().clear();
    assert_eq!(bench.install(1).unwrap().versions.len(), 1);
    assert!(!bench.fake.host.exists(format!("/opt/lighter/versions/{first}")));
}

#[test]
fn what_is_wrong_before_is_told_and_nothing_is_changed() {
    let taken = format!(
        "{V2}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.lighter-wamr]\nruntime_type = \"other\"\n"
    );
    for (text, expected) in [
        ("version = ", "was broken already"),
        ("version = 1\n", "configuration version 1"),
        ("version = 2\ndisabled_plugins = [\"cri\"]\n", "disables CRI"),
        (&*taken, "the handler \"lighter-wamr\" is there already and runs other"),
    ] {
        let mut case = cases().swap_remove(0);
        case.files[0].1 = text.to_owned();
        let bench = Bench::new(case);
        let before = bench.tree();
        let error = bench.install(0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!((bench.tree(), bench.fake.restarts.get()), (before, 0), "{text}");
    }
}

#[test]
fn a_folder_of_others_is_no_prefix() {
    let bench = Bench::of("containerd 1.7");
    fs::create_dir_all(bench.root.path().join("opt/lighter/bin")).unwrap();
    fs::write(bench.root.path().join("opt/lighter/bin/theirs"), "x").unwrap();
    let before = bench.tree();
    let error = bench.install(0).unwrap_err().to_string();
    assert!(error.contains("is there and not ours"), "{error}");
    bench.uninstall().unwrap();
    assert_eq!(bench.tree(), before);
}

#[test]
fn folders_of_others_are_not_removed_with_ours() {
    for folder in ["state", "versions"] {
        let bench = Bench::of("containerd 1.7");
        fs::create_dir_all(bench.root.path().join("opt/lighter/state")).unwrap();
        // As theirs may have one.
        fs::write(bench.root.path().join("opt/lighter/state/lock"), "").unwrap();
        fs::create_dir_all(bench.root.path().join(format!("opt/lighter/{folder}/1"))).unwrap();
        fs::write(bench.root.path().join(format!("opt/lighter/{folder}/1/theirs")), "x").unwrap();
        let before = bench.tree();
        for outcome in [bench.install(0), bench.uninstall()] {
            assert!(matches!(outcome, Err(Error::Foreign(_))), "{outcome:?}");
            assert_eq!(bench.tree(), before);
        }
    }
}

/// As after a restart that failed, which an uninstallation is to cure.
#[test]
fn pods_of_a_containerd_that_was_down_keep_their_programs() {
    let bench = Bench::of("containerd 1.7");
    let before = bench.tree();
    bench.install(0).unwrap();
    bench.fake.pods.borrow_mut().push(Running { handler: "lighter".to_owned(), started: now() });
    bench.fake.known.replace(None);
    let error = bench.uninstall().unwrap_err();
    assert!(matches!(error, Error::InUse(1)), "{error}");
    assert!(bench.fake.host.exists("/opt/lighter/bin/containerd-shim-lighter-v1"));
    assert!(!bench.fake.known.borrow().as_ref().unwrap().contains(&"lighter".to_owned()));
    bench.fake.pods.borrow_mut().clear();
    bench.uninstall().unwrap();
    assert_eq!(bench.tree(), before);
}

#[test]
fn a_configuration_that_others_changed_is_repaired_and_keeps_their_change() {
    let bench = Bench::of("containerd 1.7");
    bench.install(0).unwrap();
    let config = Path::new("/etc/containerd/config.toml");
    // Somebody writes a file of their own over it.
    put(&bench.fake.host, config, &format!("{V2}[debug]\nlevel = \"info\"\n"));
    let status = bench.status();
    assert!(!status.ready && status.notes[0].contains("not in containerd's configuration any more"), "{status:?}");
    let report = bench.install(0).unwrap();
    assert!(report.ready && report.changed, "{report:?}");
    // Somebody adds to it.
    let text = bench.fake.host.read_text(config).unwrap().unwrap();
    put(&bench.fake.host, config, &format!("# hello\n{text}"));
    assert!(bench.status().ready);
    assert!(!bench.install(0).unwrap().changed);
    let report = bench.uninstall().unwrap();
    assert!(report.notes[0].contains("changed by somebody else"), "{report:?}");
    let text = bench.fake.host.read_text(config).unwrap().unwrap();
    assert!(text.starts_with("# hello\n") && text.contains("level = \"info\"") && !text.contains("lighter"), "{text}");
}

#[test]
fn what_others_write_at_the_same_moment_is_not_lost() {
    for (name, path) in [
        ("containerd 1.7", "/etc/containerd/config.toml"),
        ("containerd 2.1", "/etc/containerd/config.toml"),
        ("k3s on 2.0 with a template", "/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl"),
    ] {
        for at in ["keep what", "write"] {
            let bench = Bench::of(name);
            let path = Path::new(path);
            let theirs = format!("{}\n# theirs\n", bench.fake.host.read_text(path).unwrap().unwrap());
            let step = |what: &str| {
                if what.starts_with(at) && what.contains(path.to_str().unwrap()) {
                    put(&bench.fake.host, path, &theirs);
                }
            };
            let error = block(bench.node(&step).install(bench.builds[0].path(), "lighter")).unwrap_err();
            assert!(matches!(error, Error::Raced(_)), "{name}: {at}: {error}");
            assert_eq!(bench.fake.host.read_text(path).unwrap().unwrap(), theirs, "{name}: {at}");
            let before = bench.tree();
            assert!(bench.install(0).unwrap().ready, "{name}: {at}");
            bench.uninstall().unwrap();
            assert_eq!(bench.tree(), before, "{name}: {at}");
        }
    }
}

#[test]
fn an_upgrade_that_crashed_and_does_not_work_goes_back_to_what_worked() {
    for more in [None, Some("lighter-wasmedge")] {
        crash_at_every_step(
            || Bench::of("containerd 2.1"),
            |bench| {
                bench.install(0).unwrap();
            },
            |node, bench| {
                bench.fake.fails.borrow_mut().retain(|fails| Some(fails.as_str()) != more);
                block(node.install(bench.builds[1].path(), "lighter")).unwrap();
            },
            |bench, step| {
                let works = Programs::in_folder(bench.builds[0].path()).unwrap();
                // By itself, or with an engine more, so that the configuration changes as well.
                let fails = ["lighter-wasmedge", "lighter b"].into_iter().filter(|name| Some(*name) != more);
                bench.fake.fails.replace(fails.map(str::to_owned).collect());
                if bench.install(1).is_ok() {
                    // It had answered before.
                    assert_eq!(step, "remove what nobody uses", "{more:?}");
                    return;
                }
                let status = bench.status();
                assert_eq!(status.version.as_deref(), Some(works.version()), "{more:?}: {step:?}");
                assert!(status.ready, "{more:?}: {step:?}: {status:?}");
            },
        );
    }
}
