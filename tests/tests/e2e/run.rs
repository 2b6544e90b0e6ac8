//! Guests that run to their end: output, input, arguments, exit code.

use lighter_tests::guests::{c, p1, p2, wat};

use crate::case::{Case, cases, lines};

cases! {
    hello_wat: Case::of(wat("hello")).stdout("hello\n").stderr("");
    hello_c: Case::of(c("hello")).stdout("hello from C\n").stderr("");
    hello_p1: Case::of(p1("hello")).stdout("hello from wasm\n").stderr("and to stderr\n");
    hello_p2: Case::of(p2("hello")).stdout("hello from wasm\n").stderr("and to stderr\n");

    exit_0: Case::of(wat("exit0")).stdout("").stderr("");
    exit_42: Case::of(wat("exit42")).exit(42).stderr("");
    exit_125_p1: Case::of(p1("exit")).args(&["125"]).exit(125);
    // WASI 0.2.0 has but success and failure.
    exit_p2: Case::of(p2("exit")).args(&["42"]).exit(1);

    trap_wat: Case::of(wat("trap")).exit(134)
        .stderr_has("unreachable").stderr_has("innermost").stderr_has("inner\n").stderr_has("start");
    trap_p1: Case::of(p1("trap")).exit(134)
        .stderr_has("the guest panics on purpose").stderr_has("unreachable").stderr_has("::inner");
    trap_p2: Case::of(p2("trap")).exit(134)
        .stderr_has("the guest panics on purpose").stderr_has("unreachable").stderr_has("::inner");

    stdin_p1: Case::of(p1("cat")).stdin("some\ninput").stdout("some\ninput").stderr("EOF 10\n");
    stdin_p2: Case::of(p2("cat")).stdin("some\ninput").stdout("some\ninput").stderr("EOF 10\n");
    stdin_large: Case::of(p1("cat")).stdin(lines(1 << 20)).stdout(lines(1 << 20)).stderr("EOF 1048576\n");

    from_the_image_p1: of_image(p1("show"));
    from_the_image_p2: of_image(p2("show"));
    from_the_command_line_p1: of_command_line(p1("show"));
    from_the_command_line_p2: of_command_line(p2("show"));

    workdir_of_the_image_p1: in_image_folder(p1("files"));
    workdir_of_the_image_p2: in_image_folder(p2("files"));
    workdir_of_the_command_line_p1: in_other_folder(p1("files"));
    workdir_of_the_command_line_p2: in_other_folder(p2("files"));
    folders_c: Case::of(c("folders")).image(|image| image.file("/etc/one", "").file("/etc/two", "")).args(&["/etc"])
        .stdout_has("cwd=/etc").stdout_has("one\n").stdout_has("two\n");

    files_in_the_rootfs_p1: Case::of(p1("files")).image(|image| image.folder("/tmp"))
        .args(&["write", "/tmp/new", "text"]).stdout("done\n");
    files_in_the_rootfs_p2: Case::of(p2("files")).image(|image| image.folder("/tmp"))
        .args(&["write", "/tmp/new", "text"]).stdout("done\n");
    links_in_the_rootfs: Case::of(p1("files")).args(&["read", "/links/symbolic"])
        .image(|image| {
            image.file("/file", "text").hard_link("/links/hard", "/file").symlink("/links/symbolic", "../links/hard")
        })
        .stdout("text\n");
}

fn of_image(guest: Vec<u8>) -> Case {
    Case::of(guest)
        .image(|image| image.cmd(&["from", "the image"]).env("COLOUR", "green").env("EMPTY", ""))
        .stdout_has("arg[0]=/app.wasm\narg[1]=from\narg[2]=the image\nenv ")
        .stdout_has("\nenv COLOUR=green\n")
        .stdout_has("\nenv EMPTY=\n")
}

fn of_command_line(guest: Vec<u8>) -> Case {
    Case::of(guest)
        .image(|image| image.cmd(&["from", "the image"]).env("COLOUR", "green"))
        .args(&["one", "two words", ""])
        .env("COLOUR=blue")
        .env("SHAPE=round = good")
        .stdout_has("arg[0]=/app.wasm\narg[1]=one\narg[2]=two words\narg[3]=\nenv ")
        .stdout_has("\nenv COLOUR=blue\n")
        .stdout_has("\nenv SHAPE=round = good\n")
}

/// A relative path starts at the working folder.
fn in_image_folder(guest: Vec<u8>) -> Case {
    Case::of(guest)
        .image(|image| image.file("/inside/note", "of the image").workdir("/inside"))
        .args(&["read", "note"])
        .stdout("of the image\n")
}

fn in_other_folder(guest: Vec<u8>) -> Case {
    Case::of(guest)
        .image(|image| image.file("/inside/note", "of the image").file("/other/note", "other").workdir("/inside"))
        .args(&["read", "note"])
        .workdir("/other")
        .stdout("other\n")
}
