//! A row: one run of a guest to its end by one of the clients, and what its user sees.

use lighter_tests::{Bed, Cmd, ENTRYPOINT, Image, Output, PLATFORM, RUNTIME, Suite};

/// How a container comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Ctr,
    Docker,
}

/// What is run and what is expected of it.
pub(crate) struct Case {
    image: Box<dyn FnOnce(Image) -> Image>,
    guest: Vec<u8>,
    args: Vec<&'static str>,
    env: Vec<&'static str>,
    workdir: Option<&'static str>,
    stdin: Option<Vec<u8>>,
    status: i32,
    stdout: Option<String>,
    stdout_has: Vec<&'static str>,
    stderr: Option<&'static str>,
    stderr_has: Vec<&'static str>,
}

impl Case {
    /// Exits with 0, unless told otherwise.
    pub(crate) fn of(guest: impl Into<Vec<u8>>) -> Case {
        Case {
            image: Box::new(|image| image),
            guest: guest.into(),
            args: Vec::new(),
            env: Vec::new(),
            workdir: None,
            stdin: None,
            status: 0,
            stdout: None,
            stdout_has: Vec::new(),
            stderr: None,
            stderr_has: Vec::new(),
        }
    }

    /// What is in the image besides the guest.
    pub(crate) fn image(mut self, change: impl FnOnce(Image) -> Image + 'static) -> Case {
        self.image = Box::new(change);
        self
    }

    /// Arguments of the command line; they replace those of the image.
    pub(crate) fn args(mut self, args: &[&'static str]) -> Case {
        self.args = args.to_vec();
        self
    }

    /// `NAME=VALUE` of the command line.
    pub(crate) fn env(mut self, variable: &'static str) -> Case {
        self.env.push(variable);
        self
    }

    /// Working folder of the command line.
    pub(crate) fn workdir(mut self, folder: &'static str) -> Case {
        self.workdir = Some(folder);
        self
    }

    /// What the guest reads, up to an end of file.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Case {
        self.stdin = Some(bytes.into());
        self
    }

    /// The exit code to expect.
    pub(crate) fn exit(mut self, status: i32) -> Case {
        self.status = status;
        self
    }

    /// All of stdout.
    pub(crate) fn stdout(mut self, text: impl Into<String>) -> Case {
        self.stdout = Some(text.into());
        self
    }

    /// A part of stdout.
    pub(crate) fn stdout_has(mut self, text: &'static str) -> Case {
        self.stdout_has.push(text);
        self
    }

    /// All of stderr.
    pub(crate) fn stderr(mut self, text: &'static str) -> Case {
        self.stderr = Some(text);
        self
    }

    /// A part of stderr.
    pub(crate) fn stderr_has(mut self, text: &'static str) -> Case {
        self.stderr_has.push(text);
        self
    }

    /// Runs it, and panics where the outcome is another.
    #[track_caller]
    pub(crate) fn check(self, name: &str, client: Client, suite: Suite) {
        let bed = Bed::get(suite);
        // Names of images have no capitals and, by taste, no underscores.
        let name = name.replace('_', "-");
        let image = (self.image)(Image::wasm(&format!("docker.io/library/{name}:latest"), self.guest));
        let mut flags: Vec<&str> = self.env.iter().flat_map(|variable| ["--env", variable]).collect();
        if let Some(folder) = self.workdir {
            flags.extend([if client == Client::Ctr { "--cwd" } else { "--workdir" }, folder]);
        }
        if self.stdin.is_some() && client == Client::Docker {
            flags.push("--interactive");
        }
        let run = client.run(bed, &image, &name, &flags, &self.args);
        let output = match (self.stdin, client) {
            (None, _) => run.run(),
            (Some(stdin), Client::Docker) => run.stdin(stdin).run(),
            // `ctr` forgets to pass an end of file on that comes before it has made the task.
            (Some(stdin), Client::Ctr) => {
                let mut running = run.spawn();
                running.write(stdin);
                running.wait_for(self.stdout.as_deref().expect("what comes of stdin"));
                running.wait()
            }
        };
        let output = output.expect(self.status);
        if let Some(stdout) = self.stdout {
            let equal = output.stdout.bytes().zip(stdout.bytes()).take_while(|(got, expected)| got == expected).count();
            assert!(
                output.stdout == stdout,
                "expected {} bytes on stdout, of {} the first {equal} are as expected\n{output:.400}",
                stdout.len(),
                output.stdout.len(),
            );
        }
        if let Some(stderr) = self.stderr {
            assert!(output.stderr == stderr, "expected stderr {stderr:?}\n{output}");
        }
        for text in self.stdout_has {
            assert!(output.stdout.contains(text), "expected {text:?} on stdout\n{output}");
        }
        for text in self.stderr_has {
            assert!(output.stderr.contains(text), "expected {text:?} on stderr\n{output}");
        }
        if client == Client::Ctr {
            bed.assert_gone(&name);
        }
    }
}

impl Client {
    /// Both, for tests that are no rows.
    pub(crate) const ALL: [Client; 2] = [Client::Ctr, Client::Docker];

    /// Imports the image and makes the command that runs it in container `id`, removed at its end.
    #[track_caller]
    pub(crate) fn run(self, bed: &Bed, image: &Image, id: &str, flags: &[&str], args: &[&str]) -> Cmd {
        let common = ["run", "--rm", "--runtime", RUNTIME, "--platform", PLATFORM];
        match self {
            Client::Ctr => {
                bed.import(image);
                // Arguments replace the entrypoint too.
                let entrypoint: &[&str] = if args.is_empty() { &[] } else { &[ENTRYPOINT] };
                bed.ctr(&[&common[..], flags, &[image.name(), id], entrypoint, args].concat())
            }
            Client::Docker => {
                bed.docker_load(image);
                bed.docker(&[&common[..], &["--name", id], flags, &[image.name()], args].concat())
            }
        }
    }
}

/// Runs `image` with `ctr`, as container `id`, with these flags and arguments.
#[track_caller]
pub(crate) fn ctr_run(bed: &Bed, image: &Image, id: &str, flags: &[&str], args: &[&str]) -> Output {
    Client::Ctr.run(bed, image, id, flags, args).run()
}

/// So many bytes in lines of 80, as guest `flood` prints them.
pub(crate) fn lines(length: usize) -> String {
    let line = format!("{}\n", &"0123456789".repeat(8)[..79]);
    line.chars().cycle().take(length).collect()
}

/// Makes a module of each row, with a test of each client and suite.
macro_rules! cases {
    ($($name:ident: $case:expr;)+) => {
        $(mod $name {
            use super::*;
            use $crate::case::Client;

            fn check(client: Client, suite: lighter_tests::Suite) {
                let case: Case = $case;
                case.check(stringify!($name), client, suite);
            }

            #[test]
            fn ctr_trixie() {
                check(Client::Ctr, lighter_tests::Suite::Trixie);
            }

            #[test]
            fn ctr_forky() {
                check(Client::Ctr, lighter_tests::Suite::Forky);
            }

            #[test]
            fn docker_trixie() {
                check(Client::Docker, lighter_tests::Suite::Trixie);
            }

            #[test]
            fn docker_forky() {
                check(Client::Docker, lighter_tests::Suite::Forky);
            }
        })+
    };
}

pub(crate) use cases;
