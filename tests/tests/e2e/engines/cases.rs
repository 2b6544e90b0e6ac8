//! The table. A line is a case: its name, README's words for it, the engines and versions of WASI that there is a guest
//! for, and what is run.

use lighter_tests::{Image, free_port, guests};

use super::{
    cell::Case,
    dns,
    target::Target::{self, P2, P3, Wamr, Wasmedge},
};

/// A line, for README.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Names of [`Target`]s.
    pub(super) targets: &'static [&'static str],
}

/// Makes [`TABLE`], and of each cell a test on every suite.
macro_rules! cases {
    ($($name:ident $title:literal [$($target:ident)+] $case:expr;)+) => {
        pub(super) const TABLE: &[Row] =
            &[$(Row { name: stringify!($name), title: $title, targets: &[$(stringify!($target)),+] }),+];

        $(mod $name {
            use super::*;

            const CASE: fn(Target) -> Case = $case;

            $(mod $target {
                use lighter_tests::Suite;

                fn check(suite: Suite) {
                    let name = stringify!($target);
                    let target = super::Target::ALL.into_iter().find(|target| target.name() == name);
                    super::super::super::cell::check(stringify!($name), super::CASE, target.expect(name), suite);
                }

                #[test]
                fn trixie() {
                    check(Suite::Trixie);
                }

                #[test]
                fn forky() {
                    check(Suite::Forky);
                }
            })+
        })+
    };
}

cases! {
    rust "guests in Rust" [p1 p2 p3 wasmedge wamr] |on| {
        let language = if on == P3 { "WASI 0.3" } else { "Rust" };
        greets(language, on, rust(on, "greet", &["one", "two words"]))
    };
    c "guests in C (clang, wasi-libc)" [p1 wasmedge wamr] |on| greets("C", on, greeting(guests::c("greet")));
    zig "guests in Zig" [p1 wasmedge wamr] |on| greets("Zig", on, greeting(guests::zig("greet")));
    zig_cc "guests in C (zig cc)" [p1 wasmedge wamr] |on| greets("zig cc", on, greeting(guests::zig("greet-c")));
    go "guests in Go" [p1 wasmedge wamr] |on| greets("Go", on, greeting(guests::go("greet")));
    javascript "guests in JavaScript (componentize-js)" [p2] |on| {
        greets("JavaScript", on, greeting(guests::javascript("greet"))).exit(0)
    };
    python "guests in Python (componentize-py)" [p2] |on| greets("Python", on, greeting(guests::python("greet")));

    working_folder "working folder" [p1 p2 p3 wasmedge wamr] |on| {
        let case = if on == P3 { rust(on, "cwd", &[""; 0]).stdout("cwd=/inside\n") } else { rust(on, "files", &["read", "note"]) };
        case.image(|image| image.file("/inside/note", "of /inside")).flags(&["--cwd", "/inside"]).stdout("/inside\n")
    };
    stdin "standard input, to its end" [p1 p2 p3 wasmedge wamr] |on| {
        rust(on, "cat", &[""; 0]).stdin("some\ninput").stdout("some\ninput")
    };
    trap "a trap: exit code 134, and why on stderr" [p1 p2 p3 wasmedge wamr] |on| {
        rust(on, "trap", &[""; 0]).exit(134).stderr("the guest panics on purpose").stderr("unreachable")
    };
    files "files of the image, and new ones" [p1 p2 p3 wasmedge wamr] |on| {
        rust(on, "files", &["write", "/tmp/new", "text"]).image(|image| image.folder("/tmp")).stdout("done\n")
    };
    volume "volumes" [p1 p2 p3 wasmedge wamr] |on| {
        rust(on, "files", &["read", "/data/note"]).image(data).volume(on, "rw").stdout("of the volume\n")
    };
    read_only_volume "volumes that are read-only" [p1 p2 p3 wasmedge wamr] |on| {
        let case = rust(on, "files", &["write", "/data/note", "text"]).image(data).volume(on, "ro").stdout("error: ");
        if on == P3 { case } else { case.exit(1) }
    };
    clocks "clocks and sleep" [p1 p2 p3 wasmedge wamr] |on| {
        rust(on, "clocks", &[""; 0]).stdout("wall clock plausible\n").stdout("slept as asked\n")
    };
    random "random numbers" [p1 p2 p3 wasmedge wamr] |on| rust(on, "random", &[""; 0]).stdout("bytes random\n");
    tcp "TCP, client and server" [p1 p2 p3 wasmedge wamr] |on| {
        net(on, &["exchange", &format!("127.0.0.1:{}", free_port())]).flags(&BED_NETWORK)
            .stdout("to the server, to the client\n")
    };
    names "names looked up by DNS" [p1 p2 p3 wasmedge wamr] |on| {
        net(on, &["resolve", dns::NAME]).image(dns::configure).flags(&BED_NETWORK).name_server().stdout(dns::ADDRESS.to_string())
    };
    threads "threads (wasi-threads)" [p1 wasmedge wamr] |_| {
        Case::of(guests::threads("sum")).stdout("4 threads, total 499999500000\n")
    };
    simd "SIMD" [p1 wasmedge wamr] |_| Case::of(guests::wat("simd")).exit(42);
    bulk_memory "bulk memory" [p1 wasmedge wamr] |_| Case::of(guests::wat("bulk-memory")).exit(42);
    tail_calls "tail calls" [p1 wasmedge wamr] |_| Case::of(guests::wat("tail-call")).exit(42);
    gc "garbage collection" [p1 wasmedge wamr] |_| Case::of(guests::wat("gc")).exit(42);
    exceptions "exceptions" [p1 wasmedge wamr] |_| Case::of(guests::wat("exceptions")).exit(42);
    memory "memory grows up to the container's limit, and no further" [p1 p2 wasmedge wamr] |on| {
        rust(on, "memory", &[""; 0]).flags(&["--memory-limit", "67108864"]).stdout_is("from 16 to 63 MiB", |stdout| {
            let reached = stdout.strip_prefix("memory.grow failed at ").and_then(|rest| rest.strip_suffix(" MiB\n"));
            reached.and_then(|mib| mib.parse().ok()).is_some_and(|mib: u32| (16..64).contains(&mib))
        })
    };
    recursion "calls four thousand deep" [p1 p2 wasmedge wamr] |on| rust(on, "recurse", &["4000"]).stdout("reached 4000\n");
    endless_recursion "endless recursion ends as a trap" [p1 p2 wasmedge wamr] |on| {
        let case = if on == P2 { rust(on, "recurse", &[""; 0]) } else { Case::of(guests::wat("recurse")) };
        case.exit(134).stderr("stack")
    };
    output "100 MB of output" [p1 p2 p3 wasmedge wamr] |on| {
        rust(on, "flood", &["100000000"])
            .same_output_as("yes $(seq -s '' 0 9 | sed 's/.*/&&&&&&&&/; s/.$//') | head -c 100000000")
    };
    sigterm "SIGTERM ends a busy loop at once" [p1 p2 p3 wasmedge wamr] |on| rust(on, "busy", &[""; 0]).terminated();
}

/// The bed's network as the container's. Not `--net-host`, which takes the bed's files for name lookup as well.
const BED_NETWORK: [&str; 2] = ["--with-ns", "network:/proc/1/ns/net"];

/// The guest in Rust of this name: a program of `tests/guests/rust`, or what `command-p3` does for that.
fn rust(on: Target, name: &str, args: &[&str]) -> Case {
    match on {
        P2 => Case::of(guests::p2(name)).args(args),
        P3 if matches!(name, "files" | "net") => Case::of(guests::p3("command")).args(args),
        P3 => Case::of(guests::p3("command")).args(&[&[name], args].concat()),
        _ => Case::of(guests::p1(name)).args(args),
    }
}

/// Sockets: those of WASI where it has them, else those that the engine has added to WASI 0.1.
fn net(on: Target, args: &[&str]) -> Case {
    match on {
        Wasmedge => Case::of(guests::c("sockets-wasmedge")).args(args),
        Wamr => Case::of(guests::c("sockets-wamr")).args(args),
        _ => rust(on, "net", args),
    }
}

fn greeting(guest: Vec<u8>) -> Case {
    Case::of(guest).args(&["one", "two words"])
}

/// The guest tells its arguments and a variable, and exits with 3. Before WASI 0.3, components have but success and failure.
fn greets(language: &str, on: Target, case: Case) -> Case {
    let text = format!("hello from {language}\narg one\narg two words\nCOLOUR=dark green\n");
    case.flags(&["--env", "COLOUR=dark green"]).stdout(text).exit(if on.is_component() { 1 } else { 3 })
}

/// A place for a volume.
fn data(image: Image) -> Image {
    image.folder("/data")
}
