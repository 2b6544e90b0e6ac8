//! To and from real registries: with and without login, by HTTP and HTTPS, one image or an index of several.

use lighter_tests::{Bed, Fault, Output, Proxy, Registry, Suite, guests, on_every_suite};
use serde_json::{Value, json};

use crate::cli::{Lighter, assert_refused};

on_every_suite! {
    each_format_comes_back_as_it_went,
    a_push_sends_only_what_is_missing,
    a_digest_names_one_image,
    platforms_of_nested_indexes,
    what_is_not_there,
    login,
    credential_helpers,
    tls_with_an_own_authority,
    plain_http_is_asked_for,
    a_registry_that_takes_no_artifacts,
}

pub(crate) const HELLO: &str = "hello from wasm\n";

/// What `lighter build --format` takes, and what `lighter inspect` calls it.
pub(crate) const FORMATS: [(&str, &str); 3] = [("artifact", "artifact"), ("image", "layer"), ("tar", "rootfs")];

/// The action of each blob, as `lighter push --json` and `lighter pull --json` tell.
fn actions(report: &Value) -> Vec<&str> {
    let blobs = report["blobs"].as_array().expect("blobs");
    assert!(!blobs.is_empty());
    blobs.iter().map(|blob| blob["action"].as_str().expect("an action")).collect()
}

/// Pulls it into a new store and runs it there.
#[track_caller]
pub(crate) fn pull_and_run<'bed>(bed: &'bed Bed, reference: &str) -> Lighter<'bed> {
    let other = Lighter::new(bed);
    other.run(&["pull", reference]).ok();
    other.assert_whole();
    assert_eq!(other.run(&["run", reference]).ok().stdout, HELLO);
    other
}

/// Builds it of guest `hello` and pushes it; returns the digest.
#[track_caller]
pub(crate) fn push_hello(lighter: &Lighter<'_>, reference: &str, format: &str) -> String {
    let digest = lighter.build(&guests::p1("hello"), reference, &["--format", format]);
    let pushed = lighter.run(&["push", reference]).ok();
    assert!(pushed.stdout.contains(&format!("{reference}@{digest}")), "{pushed}");
    digest
}

fn each_format_comes_back_as_it_went(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    for guest in [guests::p1("hello"), guests::p2("hello")] {
        for (format, known_as) in FORMATS {
            let lighter = Lighter::new(bed);
            let reference = format!("{registry}/round/{format}:1");
            let digest = lighter.build(&guest, &reference, &["--format", format]);
            let pushed = lighter.json(&["push", &reference]);
            assert_eq!((&pushed["reference"], &pushed["digest"]), (&reference.clone().into(), &digest.clone().into()));

            let other = pull_and_run(bed, &reference);
            let pulled = other.json(&["pull", &reference, "-o", "pulled.wasm"]);
            assert_eq!(pulled["digest"], digest.as_str());
            assert!(actions(&pulled).iter().all(|action| *action == "exists"), "{pulled}");
            assert!(other.read("pulled.wasm") == guest, "{format}: the module is another one");
            let to_stdout = other.sh(&format!("lighter pull -q {reference} -o - | sha256sum - pulled.wasm")).run().ok();
            let sums: Vec<&str> = to_stdout.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
            assert!(sums.len() == 2 && sums[0] == sums[1], "{to_stdout}");

            let listed = other.json(&["ls"]);
            assert_eq!((&listed[0]["reference"], &listed[0]["digest"]), (&pushed["reference"], &pushed["digest"]));
            assert_eq!(listed[0]["format"], known_as);
        }
    }
}

fn a_push_sends_only_what_is_missing(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let lighter = Lighter::new(bed);
    let first = format!("{registry}/missing/first:1");
    let second = format!("{registry}/missing/second:1");
    // Unlike what other tests push: the registry keeps blobs for all repositories.
    lighter.build(&guests::padded(guests::p1("hello"), 4321), &first, &[]);
    assert_eq!(actions(&lighter.json(&["push", &first])), ["uploaded", "uploaded"]);
    assert_eq!(actions(&lighter.json(&["push", &first])), ["exists", "exists"]);
    lighter.run(&["tag", &first, &second]).ok();
    assert_eq!(actions(&lighter.json(&["push", &second])), ["mounted", "mounted"]);
    pull_and_run(bed, &second);
}

fn a_digest_names_one_image(suite: Suite) {
    let bed = Bed::get(suite);
    let lighter = Lighter::new(bed);
    let reference = format!("{}/moving:tag", bed.registry());
    let old = push_hello(&lighter, &reference, "artifact");
    let new = lighter.build(&guests::p2("hello"), &reference, &[]);
    lighter.run(&["push", &reference]).ok();
    let other = Lighter::new(bed);
    for (name, digest) in [(reference.clone(), &new), (format!("{}/moving@{old}", bed.registry()), &old)] {
        assert_eq!(other.json(&["pull", &name])["digest"], digest.as_str());
        assert_eq!(other.run(&["run", &name]).ok().stdout, HELLO);
    }
}

/// The descriptor of an image that `lighter push` has put there.
#[track_caller]
fn pushed_descriptor(lighter: &Lighter<'_>, module: &[u8], reference: &str) -> Value {
    let digest = lighter.build(module, reference, &[]);
    lighter.run(&["push", reference]).ok();
    let inspected = lighter.json(&["inspect", reference]);
    let size = &inspected["image"]["platforms"][0]["size"];
    json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size})
}

/// Pushes an index of these descriptors, each for a platform, as oras does it; returns its own descriptor.
#[track_caller]
fn push_index(lighter: &Lighter<'_>, reference: &str, entries: &[(&Value, Option<&str>)]) -> Value {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let entries = entries.iter().map(|(descriptor, platform)| {
        let mut entry = (*descriptor).clone();
        if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
            entry["platform"] = json!({"os": os, "architecture": architecture});
        }
        entry
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries.collect::<Vec<_>>()}).to_string();
    lighter.write("index.json", &index);
    lighter
        .program(&["oras", "manifest", "push", "--plain-http", "--media-type", INDEX, reference, "index.json"])
        .run()
        .ok();
    let resolved = lighter.program(&["oras", "resolve", "--plain-http", reference]).run().ok().stdout;
    json!({"mediaType": INDEX, "digest": resolved.trim(), "size": index.len()})
}

fn platforms_of_nested_indexes(suite: Suite) {
    let bed = Bed::get(suite);
    let name = |tag: &str| format!("{}/platforms:{tag}", bed.registry());
    let lighter = Lighter::new(bed);
    let hello = pushed_descriptor(&lighter, &guests::p2("hello"), &name("hello"));
    let exit = pushed_descriptor(&lighter, &guests::wat("exit42"), &name("exit"));
    let inner = push_index(&lighter, &name("inner"), &[(&exit, Some("wasip1/wasm")), (&hello, Some("wasip2/wasm"))]);
    let outer = push_index(&lighter, &name("outer"), &[(&exit, Some("linux/s390x")), (&inner, None)]);
    let reference = name("outer");

    // WASI 0.2 before 0.1, though it comes later; and nothing that it doesn't need.
    let best = Lighter::new(bed);
    assert_eq!(best.json(&["pull", &reference])["digest"], outer["digest"]);
    assert_eq!(best.run(&["run", &reference]).ok().stdout, HELLO);
    let exit_digest = exit["digest"].as_str().expect("a digest").trim_start_matches("sha256:");
    assert!(!best.blobs().iter().any(|blob| blob == exit_digest));
    let chosen = Lighter::new(bed);
    chosen.run(&["pull", "--platform", "wasip1/wasm", &reference]).ok();
    chosen.run(&["run", &reference]).expect(42);
    let tells = ["wasi/arm64", "wasip1/wasm", "wasip2/wasm", "linux/s390x"];
    assert_refused(chosen.run(&["pull", "--platform", "wasi/arm64", &reference]), &tells);

    // The whole of it goes elsewhere as it is.
    let all = Lighter::new(bed);
    all.run(&["pull", "--all-platforms", &reference]).ok();
    all.assert_whole();
    let elsewhere = format!("{}/elsewhere:1", bed.registry());
    all.run(&["tag", &reference, &elsewhere]).ok();
    all.run(&["push", &elsewhere]).ok();
    let resolved = all.program(&["oras", "resolve", "--plain-http", &elsewhere]).run().ok().stdout;
    assert_eq!(resolved.trim(), outer["digest"]);
}

fn what_is_not_there(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.registry();
    let lighter = Lighter::new(bed);
    for name in [format!("{registry}/nothing/here:1"), format!("{registry}/nothing@sha256:{}", "0".repeat(64))] {
        assert_refused(lighter.run(&["pull", &name]), &[&name, "not found"]);
        assert_refused(lighter.run(&["push", &name]), &[&name, "lighter ls"]);
    }
    let tag = format!("{registry}/here:no-such-tag");
    push_hello(&lighter, &format!("{registry}/here:1"), "artifact");
    assert_refused(lighter.run(&["pull", &tag]), &["no-such-tag", "not found"]);
    assert_eq!(lighter.run(&["pull", "No Name"]).expect(2).stdout, "");
}

/// `docker login`, into a configuration of its own.
#[track_caller]
fn docker_login(bed: &Bed, folder: &str, password: &str) -> Output {
    let registry = bed.start_registry(Registry::Login);
    let login = ["login", "--username", Registry::USER, "--password-stdin", registry];
    bed.docker(&[&["--config", folder], &login[..]].concat()).stdin(password).run()
}

fn login(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.start_registry(Registry::Login);
    let reference = format!("{registry}/private/hello:1");
    let log_in = format!("docker login {registry}");

    let stranger = Lighter::new(bed).env("DOCKER_CONFIG=/nonexistent");
    stranger.build(&guests::p1("hello"), &reference, &[]);
    assert_refused(stranger.run(&["push", &reference]), &[registry, &log_in]);
    assert_refused(stranger.run(&["pull", &reference]), &[registry, &log_in]);

    let user = Lighter::new(bed);
    let user_config = format!("{}/docker", user.folder());
    docker_login(bed, &user_config, Registry::PASSWORD).ok();
    let user = user.env(&format!("DOCKER_CONFIG={user_config}"));
    push_hello(&user, &reference, "artifact");
    let pulled = Lighter::new(bed).env(&format!("DOCKER_CONFIG={user_config}"));
    pulled.run(&["pull", &reference]).ok();
    assert_eq!(pulled.run(&["run", &reference]).ok().stdout, HELLO);

    // As Docker writes it, of a password that is none: `docker login` itself would not.
    let wrong = Lighter::new(bed);
    wrong.write("docker/config.json", format!(r#"{{"auths":{{"{registry}":{{"auth":"Ym9hdG1hbjpzaW5rZXI="}}}}}}"#));
    let config = format!("DOCKER_CONFIG={}/docker", wrong.folder());
    let wrong = wrong.env(&config);
    let refused = wrong.run(&["pull", &reference]);
    assert!(!refused.stderr.contains("sinker"), "{refused}");
    assert_refused(refused, &[registry, &log_in]);

    wrong.write("docker/config.json", "{");
    assert_refused(wrong.run(&["pull", &reference]), &["config.json"]);
}

fn credential_helpers(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.start_registry(Registry::Login);
    let reference = format!("{registry}/helped/hello:1");
    let lighter = Lighter::new(bed);
    let folder = lighter.folder().to_owned();
    let (user, password) = (Registry::USER, Registry::PASSWORD);
    let answer = format!(r#"{{"ServerURL":"{registry}","Username":"{user}","Secret":"{password}"}}"#);
    let helper = format!("#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {registry}' ] && echo '{answer}'\n");
    lighter.write("bin/docker-credential-locker", helper);
    lighter.write("bin/docker-credential-broken", "#!/bin/sh\necho 'the locker is locked' >&2\nexit 1\n");
    bed.sh(&format!("chmod +x {folder}/bin/*")).run().ok();
    let path = format!("PATH={folder}/bin:/usr/local/bin:/usr/bin:/bin");
    let lighter = lighter.env(&path).env(&format!("DOCKER_CONFIG={folder}/docker"));
    lighter.write("docker/config.json", format!(r#"{{"credHelpers":{{"{registry}":"locker"}}}}"#));
    push_hello(&lighter, &reference, "artifact");
    lighter.write("docker/config.json", r#"{"credsStore":"locker"}"#);
    lighter.run(&["pull", &reference]).ok();

    for (config, name) in [("broken", "docker-credential-broken"), ("absent", "docker-credential-absent")] {
        lighter.write("docker/config.json", format!(r#"{{"credHelpers":{{"{registry}":"{config}"}}}}"#));
        assert_refused(lighter.run(&["pull", &reference]), &[name]);
    }
}

fn tls_with_an_own_authority(suite: Suite) {
    let bed = Bed::get(suite);
    let registry = bed.start_registry(Registry::Tls);
    let port = registry.rsplit(':').next().expect("a port");
    let lighter = Lighter::new(bed);
    // By name, and by the address of this machine, for which plain HTTP is the rule without a certificate.
    for host in [registry.to_owned(), format!("127.0.0.1:{port}")] {
        let reference = format!("{host}/secure/hello:1");
        push_hello(&lighter, &reference, "artifact");
        pull_and_run(bed, &reference);
    }
    let unknown = format!("{}/secure/hello:1", Registry::UNKNOWN_TLS);
    assert_refused(lighter.run(&["pull", &unknown]), &[Registry::UNKNOWN_TLS, "certificate", "ca.crt"]);
    // A certificate for other names is none for this one, whoever signed it.
    let other_name = format!("{}:{port}", suite.name());
    bed.sh(&format!("cd /etc/docker/certs.d && cp -r {registry} {other_name}")).run().ok();
    let other_name = format!("{other_name}/secure/hello:1");
    assert_refused(lighter.run(&["pull", &other_name]), &["certificate"]);
    let as_system = Lighter::new(bed).env("SSL_CERT_FILE=/etc/docker/certs.d/registry.test:5443/ca.crt");
    as_system.run(&["pull", &unknown]).ok();
}

fn plain_http_is_asked_for(suite: Suite) {
    let bed = Bed::get(suite);
    let port = bed.registry().rsplit(':').next().expect("a port");
    // Not an address of this machine, as far as anybody can tell from it.
    let registry = format!("registry.test:{port}");
    let reference = format!("{registry}/plain/hello:1");
    let lighter = Lighter::new(bed);
    lighter.build(&guests::p1("hello"), &reference, &[]);
    assert_refused(lighter.run(&["push", &reference]), &[&registry, "--plain-http"]);
    lighter.run(&["push", "--plain-http", &reference]).ok();
    assert_refused(lighter.run(&["pull", &reference]), &[&registry, "--plain-http"]);
    lighter.run(&["pull", "--plain-http", &reference]).ok();
    // Certificates don't make plain HTTP of TLS.
    let secure = format!("{}/plain/hello:1", bed.start_registry(Registry::Tls));
    lighter.run(&["pull", "--plain-http", &secure]).expect(1);
}

fn a_registry_that_takes_no_artifacts(suite: Suite) {
    let bed = Bed::get(suite);
    let proxy = Proxy::start(bed, bed.registry(), Fault::RefuseManifest, usize::MAX);
    let lighter = Lighter::new(bed);
    for (format, cure) in [("artifact", "--format image"), ("image", "--format tar")] {
        let reference = format!("{}/refused/{format}:1", proxy.address());
        lighter.build(&guests::p1("hello"), &reference, &["--format", format]);
        assert_refused(lighter.run(&["push", &reference]), &["MANIFEST_INVALID", cure]);
    }
}
