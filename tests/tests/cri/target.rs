//! Who runs a test's containers, and what they run: the same behaviour as a native program and as a module.

use std::fs;

use lighter_tests::{
    Bed, Image, Suite,
    cri::{ContainerBuilder, Cri, Pod, PodBuilder},
    guests,
};

/// What kind of container a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A native program by runc: what the others are held to.
    Runc,
    /// The same by Lighter.
    Native,
    /// A module by Lighter.
    Wasm,
}

/// On which daemons, and which kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) suite: Suite,
    pub(crate) kind: Kind,
}

impl Target {
    /// A client of the shared bed.
    #[track_caller]
    pub(crate) fn cri(self) -> Cri<'static> {
        Cri::connect(Bed::get(self.suite))
    }

    /// As containerd's configuration has it.
    pub(crate) fn handler(self) -> &'static str {
        match self.kind {
            Kind::Runc => "runc",
            Kind::Native | Kind::Wasm => "lighter",
        }
    }

    pub(crate) fn is_wasm(self) -> bool {
        self.kind == Kind::Wasm
    }

    /// A pod to be, whose name tells the kind as well.
    pub(crate) fn pod<'cri, 'bed>(self, cri: &'cri Cri<'bed>, name: &str) -> PodBuilder<'cri, 'bed> {
        cri.pod(self.handler(), &format!("{name}-{:?}", self.kind).to_lowercase())
    }

    /// A container to be that prints `ready` and stays until SIGTERM, which ends it with 143.
    pub(crate) fn stays<'pod, 'bed>(self, pod: &'pod Pod<'_, 'bed>, name: &str) -> ContainerBuilder<'pod, 'bed> {
        match self.kind {
            Kind::Wasm => pod.container(name, &wasm()).command(&["/sleep.wasm"]),
            // The first of a PID namespace ignores what it has no handler for.
            Kind::Runc | Kind::Native => {
                sh(pod, name, "trap 'exit 143' TERM; echo ready; while :; do sleep 1000 & wait; done")
            }
        }
    }

    /// A container to be that ends with this exit code.
    pub(crate) fn exits<'pod, 'bed>(
        self,
        pod: &'pod Pod<'_, 'bed>,
        name: &str,
        code: i32,
    ) -> ContainerBuilder<'pod, 'bed> {
        match self.kind {
            Kind::Wasm => pod.container(name, &wasm()).command(&["/exit.wasm", &code.to_string()]),
            Kind::Runc | Kind::Native => sh(pod, name, &format!("exit {code}")),
        }
    }

    /// A container to be that does one thing with files, as guest `files` does, and exits with 1 where that fails.
    pub(crate) fn files<'pod, 'bed>(
        self,
        pod: &'pod Pod<'_, 'bed>,
        name: &str,
        words: &[&str],
    ) -> ContainerBuilder<'pod, 'bed> {
        let script = match (self.kind, words) {
            (Kind::Wasm, _) => return pod.container(name, &wasm()).command(&[&["/files.wasm"], words].concat()),
            (_, ["read", path]) => format!("cat {path}"),
            (_, ["write", path, text]) => format!("printf %s '{text}' >{path}"),
            (_, ["list", path]) => format!("ls {path}"),
            (_, ["rm", path]) => format!("rm {path}"),
            (_, other) => panic!("no script for {other:?}"),
        };
        sh(pod, name, &format!("({script}) || exit 1"))
    }
}

/// A native container to be that runs a shell's script.
pub(crate) fn sh<'pod, 'bed>(pod: &'pod Pod<'_, 'bed>, name: &str, script: &str) -> ContainerBuilder<'pod, 'bed> {
    pod.container(name, &busybox(pod.cri().bed())).command(&["sh", "-c", script])
}

/// A container to be that runs a guest: `/NAME.wasm` and its arguments.
pub(crate) fn guest<'pod, 'bed>(
    pod: &'pod Pod<'_, 'bed>,
    name: &str,
    command: &[&str],
) -> ContainerBuilder<'pod, 'bed> {
    pod.container(name, &wasm()).command(command)
}

/// Busybox, and users.
pub(crate) fn busybox(bed: &Bed) -> Image {
    const APPLETS: &[&str] = &[
        "awk", "cat", "chown", "cut", "dd", "dmesg", "echo", "env", "grep", "head", "hostname", "httpd", "id", "ip",
        "ipcs", "kill", "ls", "mkdir", "mknod", "mount", "nc", "ping", "printf", "ps", "pwd", "readlink", "rm", "sed",
        "sh", "sleep", "sort", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty", "umount", "unshare", "wc",
        "wget", "yes",
    ];
    let image = Image::new("docker.io/library/busybox:cri")
        .of_host()
        .file("/bin/busybox", fs::read(bed.path("/bin/busybox")).expect("busybox of the bed"))
        .file(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\nu:x:1234:4321::/home/u:/bin/sh\n",
        )
        .file("/etc/group", "root:x:0:\nextra:x:77:u\n")
        .file("/data/file", "of the folder\n")
        .folder("/mnt")
        .folder("/tmp")
        .env("PATH", "/bin")
        .cmd(&["sh"]);
    APPLETS.iter().fold(image, |image, applet| image.symlink(&format!("/bin/{applet}"), "busybox"))
}

/// All guests that tests run, each as `/NAME.wasm`, and `/serve.wasm`, a handler of HTTP.
pub(crate) fn wasm() -> Image {
    const MODULES: &[&str] = &["busy", "cat", "exit", "files", "flood", "hello", "memory", "show", "sleep", "trap"];
    let image = Image::new("docker.io/library/guests:cri")
        .of_host()
        .file("/data/file", "of the folder")
        .folder("/tmp")
        .file("/net.wasm", guests::p2("net"))
        .file("/serve.wasm", guests::handler("serve"))
        .entrypoint(&["/hello.wasm"]);
    MODULES.iter().fold(image, |image, name| image.file(&format!("/{name}.wasm"), guests::p1(name)))
}

/// Makes tests of each `fn NAME(target: Target)`: for each of its kinds a module, and in that one for each suite.
macro_rules! targets {
    ($($test:ident: $($kind:ident)+;)+) => {
        $(mod $test {
            $(#[allow(non_snake_case, reason = "the kind's name")]
            mod $kind {
                use lighter_tests::Suite;
                use $crate::target::{Kind, Target};

                #[test]
                fn trixie() {
                    super::super::$test(Target { suite: Suite::Trixie, kind: Kind::$kind });
                }

                #[test]
                fn forky() {
                    super::super::$test(Target { suite: Suite::Forky, kind: Kind::$kind });
                }
            })+
        })+
    };
}

pub(crate) use targets;
