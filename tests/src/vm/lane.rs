//! The tests that are run in the machine: what there is of cgroups, systemd and AppArmor in the shim's work.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{DRIVER, Job, Step, run};
use crate::{Suite, cache, checkout, guests, rootfs, staging};

/// The whole of it takes no longer.
const WITHIN: Duration = Duration::from_secs(40 * 60);

/// Tests of one program, chosen by parts of their names.
struct Row {
    name: &'static str,
    driver: &'static str,
    program: &'static str,
    tests: &'static [&'static str],
    /// Not those: each row is run on one suite, for it takes ten times as long here.
    skip: &'static [&'static str],
}

/// The runtimes make the cgroups, or systemd does.
const CGROUPFS: &str = "cgroupfs";
const SYSTEMD: &str = "systemd";

const ROWS: &[Row] = &[
    Row {
        name: "the task API",
        driver: CGROUPFS,
        program: "contract",
        tests: &["processes_and_figures"],
        skip: &["trixie"],
    },
    Row {
        name: "tasks",
        driver: CGROUPFS,
        program: "e2e",
        tests: &[
            "run::hello_p",
            "task::",
            "exec::ends_with_the_container",
            "crash::of_the_daemon",
            "crash::of_the_runner",
        ],
        skip: &["forky", "docker"],
    },
    Row {
        name: "AppArmor",
        driver: CGROUPFS,
        program: "e2e",
        tests: &["docker::apparmor", "docker::memory_limit"],
        skip: &["trixie"],
    },
    Row {
        name: "pods",
        driver: CGROUPFS,
        program: "cri",
        tests: &["containers::it_is_created_started_and_ended", "mounts::devices"],
        skip: &["forky", "Runc"],
    },
    Row {
        name: "Docker",
        driver: SYSTEMD,
        program: "e2e",
        tests: &["docker::systemd", "docker::figures::out_of_memory", "docker::life::paused", "docker::memory"],
        skip: &["trixie", "runc"],
    },
    Row { name: "pods", driver: SYSTEMD, program: "cri", tests: &["resources::"], skip: &["trixie", "Runc"] },
];

/// Runs them, and returns 0 where all passed. What they need is built before, on this machine.
///
/// # Errors
/// When something they need can't be had.
pub fn lane() -> Result<i32> {
    let programs = programs()?;
    let steps = ROWS.iter().map(|row| {
        let program = programs.get(row.program).with_context(|| format!("cargo built no {}", row.program))?;
        let skip = row.skip.iter().flat_map(|part| ["--skip", part]);
        let words =
            [program.to_str().context("path of a test")?].into_iter().chain(row.tests.iter().copied()).chain(skip);
        Ok(Step {
            name: format!("{}, {}", row.name, row.driver),
            command: words.map(str::to_owned).collect(),
            environment: vec![(DRIVER.to_owned(), row.driver.to_owned())],
        })
    });
    let steps = steps.collect::<Result<_>>()?;
    run(&prepared(Job { steps, ..Job::default() })?, WITHIN)
}

/// Adds what programs of the testbed look for: root filesystems, guests, binaries under test.
///
/// # Errors
/// When something can't be had.
pub fn prepared(mut job: Job) -> Result<Job> {
    for suite in Suite::ALL {
        rootfs::get(suite)?;
    }
    let own = env::current_exe().context("find own executable")?;
    let usr_local = staging::usr_local(&own)?;
    let destdir = usr_local.parent().and_then(Path::parent).context("folder of the binaries under test")?;
    let target = own.parent().context("cargo's folder")?;
    job.shares.extend([cache::folder()?, destdir.to_owned(), target.to_owned(), checkout()]);
    let given = env::join_paths(guests::of_a_node()?).context("paths of guests")?;
    for (name, value) in [
        (guests::GIVEN, given),
        ("LIGHTER_DESTDIR", destdir.into()),
        ("CARGO_MANIFEST_DIR", checkout().join("tests").into()),
        ("HOME", env::home_dir().context("HOME is not set")?.into()),
        ("XDG_CACHE_HOME", env::var_os("XDG_CACHE_HOME").unwrap_or_default()),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("RUST_BACKTRACE", "0".into()),
    ] {
        let value = value.into_string().map_err(|value| anyhow::anyhow!("{name}={} is no text", value.display()))?;
        job.environment.push((name.to_owned(), value));
    }
    Ok(job)
}

/// The tests' programs by their names, as cargo builds them.
fn programs() -> Result<HashMap<String, PathBuf>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--locked", "--no-run", "--message-format=json", "--package", "lighter-tests"]);
    cargo.args(ROWS.iter().flat_map(|row| ["--test", row.program]));
    let built = cargo.current_dir(checkout()).stderr(Stdio::inherit()).output().context("run cargo")?;
    ensure!(built.status.success(), "cargo could not build the tests");
    let messages = String::from_utf8_lossy(&built.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = |message: Value| {
        let name = message.pointer("/target/name")?.as_str()?.to_owned();
        Some((name, PathBuf::from(message.get("executable")?.as_str()?)))
    };
    Ok(messages.filter_map(program).collect())
}
