//! A container of Docker that a test holds on to.

use std::time::{Duration, Instant};

use lighter_tests::{Bed, Image, Output, PLATFORM, RUNTIME, vm};

/// A container that runs in the background; removed when dropped, even by a failed test.
pub(crate) struct Container<'bed> {
    pub(crate) bed: &'bed Bed,
    pub(crate) name: String,
}

impl<'bed> Container<'bed> {
    /// `docker run --detach`.
    #[track_caller]
    pub(crate) fn detach(bed: &'bed Bed, name: &str, guest: &[u8], flags: &[&str], args: &[&str]) -> Container<'bed> {
        let image = Image::wasm(&format!("docker.io/library/{name}:latest"), guest);
        bed.docker_load(&image);
        let container = Container { bed, name: name.to_owned() };
        let run = ["run", "--detach", "--name", name, "--runtime", RUNTIME, "--platform", PLATFORM];
        bed.docker(&[&run, flags, &[image.name()], args].concat()).run().ok();
        container
    }

    /// As [`Container::detach`], and waits until the guest has printed `ready`.
    #[track_caller]
    pub(crate) fn ready(bed: &'bed Bed, name: &str, guest: &[u8], flags: &[&str]) -> Container<'bed> {
        let container = Container::detach(bed, name, guest, flags, &[]);
        container.wait_for_log("ready");
        container
    }

    /// `docker COMMAND FLAGS NAME`.
    #[track_caller]
    pub(crate) fn docker(&self, command: &str, flags: &[&str]) -> Output {
        self.bed.docker(&[&[command], flags, &[self.name.as_str()]].concat()).run()
    }

    /// `docker exec --detach NAME ARGS`.
    #[track_caller]
    pub(crate) fn docker_exec_detached(&self, args: &[&str]) {
        self.bed.docker(&[&["exec", "--detach", &self.name], args].concat()).run().ok();
    }

    /// What `docker inspect` says of it by a template.
    #[track_caller]
    pub(crate) fn inspect(&self, template: &str) -> String {
        self.docker("inspect", &["--format", template]).ok().stdout.trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + vm::patience(Duration::from_secs(20));
        loop {
            let logs = self.docker("logs", &[]);
            if logs.stdout.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} in the logs\n{logs}");
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // The test may have removed it.
        let _ = self.bed.docker(&["rm", "--force", &self.name]).try_run();
    }
}
