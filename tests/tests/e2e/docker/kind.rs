//! A container three ways: a guest, a native program, and the same program under runc, which is the measure of both.

use std::sync::OnceLock;

use lighter_tests::{Bed, Cmd, Image, Output, PLATFORM, RUNTIME, Suite, guests};

use crate::container::Container;

/// What runs in a container, and by which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// WebAssembly under Lighter.
    Guest,
    /// A native program under Lighter.
    Native,
    /// The same under runc.
    Runc,
}

/// What a container does, or a command that is run in it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// Prints `ready` and stays, until SIGTERM (then 143) or SIGINT (then 130).
    Stay,
    /// The same, computing.
    Busy,
    /// Copies what it reads, to the end.
    Cat,
    /// Exits with this code.
    Exit(&'static str),
    /// Prints `hello from wasm`, and `and to stderr` to stderr.
    Hello,
    /// Prints its environment and its working folder.
    Show,
    /// Prints a file; exits with 1 where there is none.
    Read(&'static str),
    /// Writes a text to a file.
    Write(&'static str, &'static str),
}

const GUESTS: &str = "docker.io/library/everyday:guests";
const NATIVE: &str = "docker.io/library/everyday:native";

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Guest, Kind::Native, Kind::Runc];

    /// In names of containers.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Kind::Guest => "guest",
            Kind::Native => "native",
            Kind::Runc => "runc",
        }
    }

    /// An image that holds all programs, loaded into Docker once; only of beds that tests share.
    #[track_caller]
    pub(crate) fn image(self, bed: &Bed) -> &'static str {
        static LOADED: [OnceLock<()>; 2 * Suite::ALL.len()] = [const { OnceLock::new() }; 2 * Suite::ALL.len()];
        let of_guests = self == Kind::Guest;
        LOADED[2 * (bed.suite() as usize) + usize::from(of_guests)].get_or_init(|| {
            bed.docker_load(&if of_guests { image_of_guests() } else { image_of_natives(bed) });
        });
        if of_guests { GUESTS } else { NATIVE }
    }

    /// Flags of `docker run` and `docker create`.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Kind::Guest => &["--pull", "never", "--runtime", RUNTIME, "--platform", PLATFORM],
            Kind::Native => &["--pull", "never", "--runtime", RUNTIME],
            Kind::Runc => &["--pull", "never", "--runtime", "io.containerd.runc.v2"],
        }
    }

    /// The program and its arguments.
    pub(crate) fn words(self, program: Program) -> Vec<&'static str> {
        match (self, program) {
            (Kind::Guest, Program::Stay) => vec!["/bin/stay.wasm"],
            (Kind::Guest, Program::Busy) => vec!["/bin/busy.wasm"],
            (Kind::Guest, Program::Cat) => vec!["/bin/cat.wasm"],
            (Kind::Guest, Program::Exit(code)) => vec!["/bin/exit.wasm", code],
            (Kind::Guest, Program::Hello) => vec!["/bin/hello.wasm"],
            (Kind::Guest, Program::Show) => vec!["/bin/show.wasm"],
            (Kind::Guest, Program::Read(path)) => vec!["/bin/files.wasm", "read", path],
            (Kind::Guest, Program::Write(path, text)) => vec!["/bin/files.wasm", "write", path, text],
            // The first of a PID namespace ignores what it has no handler for.
            (_, Program::Stay) => {
                vec!["sh", "-c", "trap 'exit 143' TERM; trap 'exit 130' INT; echo ready; while :; do sleep 0.1; done"]
            }
            (_, Program::Busy) => {
                vec!["sh", "-c", "trap 'exit 143' TERM; trap 'exit 130' INT; echo ready; while :; do :; done"]
            }
            (_, Program::Cat) => vec!["cat"],
            (_, Program::Exit(code)) => vec!["sh", "-c", "exit $0", code],
            (_, Program::Hello) => vec!["sh", "-c", "echo hello from wasm; echo and to stderr >&2"],
            (_, Program::Show) => vec!["sh", "-c", "env | sed 's/^/env /'; echo cwd=$(pwd)"],
            (_, Program::Read(path)) => vec!["cat", path],
            (_, Program::Write(path, text)) => vec!["sh", "-c", "printf '%s' \"$1\" >\"$0\" && echo done", path, text],
        }
    }

    /// The container's name in the test `name`.
    pub(crate) fn name(self, name: &str) -> String {
        format!("{name}-{}", self.slug())
    }

    /// `docker run FLAGS IMAGE PROGRAM`, of a container of this name.
    #[track_caller]
    pub(crate) fn run(self, bed: &Bed, name: &str, flags: &[&str], program: Program) -> Cmd {
        let run = ["run", "--name", name];
        bed.docker(&[&run, self.flags(), flags, &[self.image(bed)], &self.words(program)].concat())
    }

    /// The same in the background, removed when dropped.
    #[track_caller]
    pub(crate) fn detach<'bed>(self, bed: &'bed Bed, name: &str, flags: &[&str], program: Program) -> Everyday<'bed> {
        let container = self.container(bed, name);
        self.run(bed, &container.name, &[&["--detach"], flags].concat(), program).run().ok();
        Everyday { kind: self, container }
    }

    /// The same of a program that prints `ready`, which it has done.
    #[track_caller]
    pub(crate) fn ready<'bed>(self, bed: &'bed Bed, name: &str, flags: &[&str]) -> Everyday<'bed> {
        let container = self.detach(bed, name, flags, Program::Stay);
        container.wait_for_log("ready");
        container
    }

    /// Removes what has this name when dropped.
    pub(crate) fn container<'bed>(self, bed: &'bed Bed, name: &str) -> Container<'bed> {
        Container { bed, name: self.name(name) }
    }
}

/// A container that commands are run in.
pub(crate) struct Everyday<'bed> {
    pub(crate) kind: Kind,
    container: Container<'bed>,
}

impl Everyday<'_> {
    /// `docker exec FLAGS NAME PROGRAM`.
    #[track_caller]
    pub(crate) fn exec(&self, flags: &[&str], program: Program) -> Cmd {
        self.bed.docker(&[&["exec"], flags, &[&self.name], &self.kind.words(program)].concat())
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn executed(&self, flags: &[&str], program: Program) -> Output {
        self.exec(flags, program).run()
    }
}

impl<'bed> std::ops::Deref for Everyday<'bed> {
    type Target = Container<'bed>;

    fn deref(&self) -> &Container<'bed> {
        &self.container
    }
}

fn image_of_guests() -> Image {
    let rust = ["cat", "exit", "hello", "show", "files"];
    let image =
        rust.iter().fold(Image::new(GUESTS), |image, name| image.file(&format!("/bin/{name}.wasm"), guests::p1(name)));
    folders(image.file("/bin/stay.wasm", guests::wat("sleep")).file("/bin/busy.wasm", guests::wat("busy")))
}

fn image_of_natives(bed: &Bed) -> Image {
    let busybox = std::fs::read(bed.path("/bin/busybox")).expect("busybox of the bed");
    let applets = ["cat", "env", "httpd", "printf", "pwd", "sed", "sh", "sleep", "stty", "wget"];
    let image = Image::new(NATIVE).of_host().file("/bin/busybox", busybox);
    folders(applets.iter().fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox")))
}

fn folders(image: Image) -> Image {
    image.folder("/data").folder("/tmp").file("/data/note", "of the image").env("PATH", "/bin").env("COLOUR", "green")
}

/// Makes libtest functions `NAME::KIND::SUITE` of each `fn NAME(suite: Suite, kind: Kind)`.
macro_rules! on_every_kind {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            use $crate::docker::kind::Kind;

            fn guest(suite: lighter_tests::Suite) {
                super::$test(suite, Kind::Guest);
            }

            fn native(suite: lighter_tests::Suite) {
                super::$test(suite, Kind::Native);
            }

            fn runc(suite: lighter_tests::Suite) {
                super::$test(suite, Kind::Runc);
            }

            lighter_tests::on_every_suite!(guest, native, runc);
        })+
    };
}

pub(crate) use on_every_kind;
