//! A cell: one case on one engine and one suite; what is run, and what its user must see.

use std::{fmt::Write, time::Duration};

use lighter_tests::{Bed, ENTRYPOINT, Image, Output, PLATFORM, RUNTIME, Suite};

use super::{dns, known, target::Target};

/// An engine may have to compile the guest first, on a machine that runs other cells as well.
const TIMEOUT: Duration = Duration::from_secs(180);

/// What is run, and what comes of it.
pub(super) struct Case {
    guest: Vec<u8>,
    image: fn(Image) -> Image,
    args: Vec<String>,
    flags: Vec<String>,
    /// Made in the bed before; volumes.
    before: Option<String>,
    stdin: Option<&'static str>,
    answers_names: bool,
    way: Way,
    status: i32,
    stdout: Vec<String>,
    stdout_is: Option<(&'static str, Test)>,
    stderr: Vec<&'static str>,
}

/// Whether a text is as it must be.
type Test = fn(&str) -> bool;

/// How it is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By `ctr`, to its end.
    ToItsEnd,
    /// By `ctr`; SIGTERM when it has printed `ready`.
    Terminated,
    /// By Docker, for `ctr` drops what it has not read when a task ends; its stdout is compared with this shell command's.
    Compared(&'static str),
}

impl Case {
    /// Exits with 0, unless told otherwise.
    pub(super) fn of(guest: impl Into<Vec<u8>>) -> Case {
        Case {
            guest: guest.into(),
            image: |image| image,
            args: Vec::new(),
            flags: Vec::new(),
            before: None,
            stdin: None,
            answers_names: false,
            way: Way::ToItsEnd,
            status: 0,
            stdout: Vec::new(),
            stdout_is: None,
            stderr: Vec::new(),
        }
    }

    /// What is in the image besides the guest.
    pub(super) fn image(mut self, change: fn(Image) -> Image) -> Case {
        self.image = change;
        self
    }

    pub(super) fn args<S: ToString>(mut self, args: &[S]) -> Case {
        self.args = args.iter().map(S::to_string).collect();
        self
    }

    /// Of `ctr run`.
    pub(super) fn flags(mut self, flags: &[&str]) -> Case {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// A folder of the bed's at `/data`, which holds `note`; of this cell alone. `mode` is `rw` or `ro`.
    pub(super) fn volume(mut self, target: Target, mode: &str) -> Case {
        let folder = format!("/srv/engines-{}-{mode}", target.name());
        self.before = Some(format!("mkdir -p {folder} && echo of the volume >{folder}/note"));
        let mount = format!("type=bind,src={folder},dst=/data,options=rbind:{mode}");
        self.flags(&["--mount", &mount])
    }

    /// What the guest reads, up to an end of file.
    pub(super) fn stdin(mut self, text: &'static str) -> Case {
        self.stdin = Some(text);
        self
    }

    /// There is a name server in the bed's network, which knows [`dns::NAME`].
    pub(super) fn name_server(mut self) -> Case {
        self.answers_names = true;
        self
    }

    /// SIGTERM when it has printed `ready`.
    pub(super) fn terminated(mut self) -> Case {
        self.way = Way::Terminated;
        self.exit(143)
    }

    /// Prints what the shell command in the bed prints, byte for byte; too much to hold.
    pub(super) fn same_output_as(mut self, command: &'static str) -> Case {
        self.way = Way::Compared(command);
        self
    }

    pub(super) fn exit(mut self, status: i32) -> Case {
        self.status = status;
        self
    }

    /// A part of stdout.
    pub(super) fn stdout(mut self, text: impl Into<String>) -> Case {
        self.stdout.push(text.into());
        self
    }

    /// What stdout must be, in words and as a test of it.
    pub(super) fn stdout_is(mut self, what: &'static str, test: Test) -> Case {
        self.stdout_is = Some((what, test));
        self
    }

    /// A part of stderr.
    pub(super) fn stderr(mut self, text: &'static str) -> Case {
        self.stderr.push(text);
        self
    }

    /// What is wrong with the outcome, if anything is.
    fn outcome(self, bed: &Bed, id: &str, target: Target) -> Result<(), String> {
        let image = (self.image)(Image::wasm(&format!("docker.io/library/{id}:latest"), self.guest.as_slice()));
        if self.answers_names {
            dns::serve(bed);
        }
        let engine = format!("run.lighter.engine={}", target.engine());
        let common = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM, "--annotation", &engine];
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let mut expected = self.stdout.clone();
        let output = match self.way {
            Way::Compared(command) => {
                bed.docker_load(&image);
                expected.push(bed.sh(&format!("{command} | sha256sum")).run().ok().stdout);
                let run =
                    [&common[..], &["--log-driver", "none", "--name", id, image.name()], &args].concat().join(" ");
                // The exit code is what the shell makes of both.
                bed.cmd(&["bash", "-c", &format!("set -o pipefail; docker {run} | sha256sum")]).timeout(TIMEOUT).run()
            }
            Way::ToItsEnd | Way::Terminated => {
                if let Some(command) = &self.before {
                    bed.sh(command).run().ok();
                }
                bed.import(&image);
                let entrypoint: &[&str] = if args.is_empty() { &[] } else { &[ENTRYPOINT] };
                let run = [&common[..], &flags, &[image.name(), id], entrypoint, &args].concat();
                self.by_ctr(bed, id, &run)?
            }
        };
        bed.assert_gone(id);
        self.judge(&expected, &output)
    }

    fn by_ctr(&self, bed: &Bed, id: &str, run: &[&str]) -> Result<Output, String> {
        let run = bed.ctr(run).timeout(TIMEOUT);
        if self.way == Way::ToItsEnd && self.stdin.is_none() {
            return Ok(run.run());
        }
        let mut running = run.spawn();
        match self.stdin {
            // `ctr` forgets to pass an end of file on that comes before it has made the task.
            Some(stdin) => {
                running.write(stdin);
                running.prints(stdin);
            }
            None if running.prints("ready") => {
                bed.ctr(&["tasks", "kill", "--signal", "SIGTERM", id]).run().ok();
            }
            // It has ended, or will be killed; its streams say why.
            None => {}
        }
        Ok(running.wait())
    }

    fn judge(&self, expected: &[String], output: &Output) -> Result<(), String> {
        let mut wrong = String::new();
        if output.status != self.status {
            let _ = writeln!(wrong, "expected exit code {}", self.status);
        }
        for text in expected.iter().filter(|text| !output.stdout.contains(text.as_str())) {
            let _ = writeln!(wrong, "expected {text:?} on stdout");
        }
        if let Some((what, _)) = self.stdout_is.filter(|(_, test)| !test(&output.stdout)) {
            let _ = writeln!(wrong, "expected stdout to be {what}");
        }
        for text in self.stderr.iter().filter(|text| !output.stderr.contains(**text)) {
            let _ = writeln!(wrong, "expected {text:?} on stderr");
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong}{output:.4000}")) }
    }
}

/// Runs a cell, and panics where the outcome is another than the table and the list of known failures say.
#[track_caller]
pub(super) fn check(name: &str, case: fn(Target) -> Case, target: Target, suite: Suite) {
    let bed = Bed::get(suite);
    // Names of images have no capitals and, by taste, no underscores.
    let id = format!("engines-{}-{}", name.replace('_', "-"), target.name());
    let outcome = case(target).outcome(bed, &id, target);
    let known = known::of(name, target, suite);
    match (outcome, known) {
        (Ok(()), None) => {}
        (Err(wrong), None) => panic!("{name} on {} ({suite}): {wrong}", target.title()),
        (Ok(()), Some(known)) => {
            panic!("{name} on {} ({suite}) works now: take it off the list ({})", target.title(), known.reason)
        }
        (Err(wrong), Some(known)) => {
            assert!(
                wrong.contains(known.says),
                "{name} on {} ({suite}) fails otherwise than known, without {:?}: {wrong}",
                target.title(),
                known.says
            );
            eprintln!("known failure: {name} on {} ({suite}): {}", target.title(), known.reason);
        }
    }
}
