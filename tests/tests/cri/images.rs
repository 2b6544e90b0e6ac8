//! Images as pods name them: pulled from a registry, by tag and by digest, in every format that `lighter build` makes.

use lighter_tests::{
    Image, Suite,
    cri::{Cri, api::ContainerStatus},
    guests, on_every_suite,
};

on_every_suite! {
    by_tag_and_by_digest,
    what_lighter_builds,
    another_engine_by_its_handler,
    an_engine_by_annotation,
    what_is_not_there,
}

/// Builds an image with `lighter`, pushes it to the bed's registry, and returns its name.
#[track_caller]
fn push(cri: &Cri<'_>, name: &str, format: &str, module: &[u8]) -> String {
    let bed = cri.bed();
    let image = format!("{}/cri/{name}:1", bed.registry());
    let file = format!("/tmp/{name}.wasm");
    std::fs::write(bed.path(&file), module).expect("write the module");
    bed.cmd(&["lighter", "build", &file, "-t", &image, "--format", format]).run().ok();
    bed.cmd(&["lighter", "push", &image]).run().ok();
    image
}

/// Runs an image that CRI has, to its end.
#[track_caller]
fn run(cri: &Cri<'_>, handler: &str, image: &str, command: &[&str]) -> (ContainerStatus, String) {
    let pod = cri.pod(handler, "image").run();
    let container = pod.container_of("c", image).command(command).start();
    let text = container.expect(0);
    (container.status(), text)
}

fn by_tag_and_by_digest(suite: Suite) {
    let bed = lighter_tests::Bed::get(suite);
    let cri = Cri::connect(bed);
    let name = push(&cri, "digest", "image", &guests::p1("hello"));
    let reference = cri.pull(&name).expect("pull by tag");
    let image = cri.image(&name).expect("the image");
    assert_eq!(image.repo_tags, [name.as_str()]);
    let by_digest = image.repo_digests.first().expect("a digest").clone();
    assert_eq!(cri.pull(&by_digest).expect("pull by digest"), reference);
    for image in [&name, &by_digest, &reference] {
        let (status, text) = run(&cri, "lighter", image, &[]);
        assert!(text.contains("hello from wasm"), "{image}: {text}");
        assert!(status.image_ref.contains("sha256:"), "{status:?}");
    }
}

fn what_lighter_builds(suite: Suite) {
    let bed = lighter_tests::Bed::get(suite);
    let cri = Cri::connect(bed);
    // An artifact has no entrypoint: the pod gives a command.
    for (format, command) in [("image", &[][..]), ("tar", &[]), ("artifact", &["/hello.wasm"])] {
        let name = push(&cri, &format!("built-{format}"), format, &guests::p1("hello"));
        cri.pull(&name).unwrap_or_else(|status| panic!("pull {format}: {status}"));
        let (_, text) = run(&cri, "lighter", &name, command);
        assert!(text.contains("hello from wasm"), "{format}: {text}");
    }
}

fn another_engine_by_its_handler(suite: Suite) {
    let bed = lighter_tests::Bed::get(suite);
    let cri = Cri::connect(bed);
    // WAMR has threads, and Wasmtime has none.
    let image = Image::wasm("docker.io/library/sum:cri", guests::threads("sum")).of_host();
    cri.import(&image);
    let (_, text) = run(&cri, "lighter-wamr", image.name(), &[]);
    assert!(!text.is_empty());
    let pod = cri.pod("lighter", "wasmtime").run();
    let refused = pod.container_of("c", image.name()).create().start().expect_err("threads on Wasmtime");
    assert!(refused.message().contains("memory"), "{refused}");
}

fn an_engine_by_annotation(suite: Suite) {
    let bed = lighter_tests::Bed::get(suite);
    let cri = Cri::connect(bed);
    let image = Image::wasm("docker.io/library/sum:cri", guests::threads("sum")).of_host();
    cri.import(&image);
    let pod = cri.pod("lighter", "annotated").run();
    let container = pod.container_of("c", image.name());
    let container = container.with(|config| {
        config.annotations.insert("run.lighter.engine".to_owned(), "wamr".to_owned());
    });
    container.start().expect(0);
}

fn what_is_not_there(suite: Suite) {
    let bed = lighter_tests::Bed::get(suite);
    let cri = Cri::connect(bed);
    let name = format!("{}/cri/nope:1", bed.registry());
    cri.pull(&name).expect_err("there is no such image");
    assert!(cri.image(&name).is_none());
    let pod = cri.pod("lighter", "absent").run();
    assert!(pod.container_of("c", &name).try_create().is_err());
}
