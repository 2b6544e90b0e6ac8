//! The `lighter` command, as a user of a shell sees it.

mod build;
mod inspect;
mod node;
mod run;
mod store;

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use lighter_tests::{Bed, Cmd, Output};
use serde_json::Value;

/// `lighter` in a bed, with a store and a folder of its own.
pub(crate) struct Lighter<'bed> {
    pub(crate) bed: &'bed Bed,
    folder: String,
    environment: Vec<String>,
}

impl<'bed> Lighter<'bed> {
    /// With an empty store.
    #[track_caller]
    pub(crate) fn new(bed: &'bed Bed) -> Lighter<'bed> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let folder = format!("/tmp/lighter-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(bed.path(&folder)).expect("a new folder");
        let store = format!("LIGHTER_STORE={folder}/store");
        Lighter { bed, folder, environment: vec![store] }
    }

    /// With a variable more in its environment.
    pub(crate) fn env(mut self, variable: &str) -> Lighter<'bed> {
        self.environment.push(variable.to_owned());
        self
    }

    /// `lighter ARGUMENTS`.
    pub(crate) fn cmd(&self, arguments: &[&str]) -> Cmd {
        self.program(&[&["lighter"], arguments].concat())
    }

    /// A shell script, ended by its first error.
    pub(crate) fn sh(&self, script: &str) -> Cmd {
        self.program(&["sh", "-ec", script])
    }

    /// Any program, in the folder and with the environment.
    pub(crate) fn program(&self, argv: &[&str]) -> Cmd {
        let environment: Vec<&str> = self.environment.iter().map(String::as_str).collect();
        self.bed.cmd(&[&["env", "--chdir", &self.folder], &environment[..], argv].concat())
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.cmd(arguments).run()
    }

    /// Runs it with `--json`, and returns the one document that it prints.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat()).ok();
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{output}"))
    }

    /// Puts a file into its folder.
    #[track_caller]
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file's folder")).expect("the file's folder");
        fs::write(path, bytes).expect("a file in the bed");
    }

    /// What a file in its folder holds.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("read {name}: {error}"))
    }

    /// Its folder, as the bed sees it.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// A file of its folder, as the host sees it.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.bed.path(&self.folder).join(name)
    }

    /// `lighter build` of a module, and the digest of what it made.
    #[track_caller]
    pub(crate) fn build(&self, module: &[u8], reference: &str, flags: &[&str]) -> String {
        self.write("app.wasm", module);
        let built = self.json(&[&["build", "app.wasm", "-t", reference], flags].concat());
        built["digest"].as_str().unwrap_or_else(|| panic!("no digest in {built}")).to_owned()
    }

    /// The names of the blobs in the store: digests without `sha256:`.
    pub(crate) fn blobs(&self) -> Vec<String> {
        let blobs = fs::read_dir(self.path("store/blobs/sha256")).into_iter().flatten();
        blobs.map(|blob| blob.expect("a blob").file_name().into_string().expect("a digest")).collect()
    }

    /// Panics unless each blob in the store has the digest that names it.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let sums =
            self.sh("mkdir -p store; find store -path '*/blobs/*' -type f -exec sha256sum {} +").run().ok().stdout;
        for line in sums.lines() {
            let (digest, path) = line.split_once("  ").expect("a line of sha256sum");
            assert_eq!(path.rsplit('/').next(), Some(digest), "a blob that is not what its name says");
        }
    }
}

/// Panics unless it failed, on stderr only, with one sentence that says all of `tells`.
#[track_caller]
pub(crate) fn assert_refused(output: Output, tells: &[&str]) {
    let output = output.expect(1);
    assert_eq!(output.stdout, "", "{output}");
    let message = output.stderr.lines().find(|line| line.starts_with("lighter: "));
    let message = message.unwrap_or_else(|| panic!("no line `lighter: …`\n{output}"));
    for text in tells {
        assert!(message.contains(text), "expected {text:?}\n{output}");
    }
    assert!(!output.stderr.contains("panicked"), "{output}");
}
