//! A handler in a container of containerd's, in the bed's own network.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use lighter_tests::{
    Bed, Image, Output, PLATFORM, RUNTIME, free_port, guests,
    http::{Connection, Version},
};

use crate::cleanup::{remove_ended, wait_for_status};

/// How long a line may take from the guest to the log.
const LOGS_WITHIN: Duration = Duration::from_secs(10);

/// The handlers that there are; `tests/guests/http` says what each answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    /// Rust, WASI 0.2.
    P2,
    /// Rust, WASI 0.3.
    P3,
    /// Rust, WASI 0.2 with `wasi:config` and `wasi:keyvalue`.
    Store,
    /// JavaScript, WASI 0.2.
    JavaScript,
    /// Python, WASI 0.2.
    Python,
}

impl Guest {
    /// In names of images and containers.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Guest::P2 => "p2",
            Guest::P3 => "p3",
            Guest::Store => "store",
            Guest::JavaScript => "js",
            Guest::Python => "python",
        }
    }

    #[track_caller]
    pub(crate) fn component(self) -> Vec<u8> {
        guests::handler(match self {
            Guest::P2 => "serve",
            Guest::P3 => "serve-p3",
            Guest::Store => "store",
            Guest::JavaScript => "javascript",
            Guest::Python => "python",
        })
    }

    /// An image with the component alone. A layer of its own: the large ones are not unpacked for each container.
    #[track_caller]
    pub(crate) fn image(self) -> Image {
        Image::layer(&format!("docker.io/library/handler-{}:latest", self.slug()), self.component())
    }
}

/// How a handler is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    id: String,
    image: Image,
    pub(crate) address: SocketAddr,
    flags: Vec<String>,
}

impl Setup {
    /// In container `id`, on a port of its own of the loopback address.
    #[track_caller]
    pub(crate) fn new(id: &str, guest: Guest) -> Setup {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let setup = Setup { id: id.to_owned(), image: guest.image(), address, flags: Vec::new() };
        setup.annotation("http.address", &address.to_string())
    }

    /// With an annotation `run.lighter.NAME`.
    pub(crate) fn annotation(self, name: &str, value: &str) -> Setup {
        self.flag("--annotation").flag(&format!("run.lighter.{name}={value}"))
    }

    /// With a flag for `ctr run`.
    pub(crate) fn flag(mut self, flag: &str) -> Setup {
        self.flags.push(flag.to_owned());
        self
    }

    /// Of an image that holds more than the handler.
    pub(crate) fn image(mut self, change: impl FnOnce(Image) -> Image) -> Setup {
        self.image = change(self.image);
        self
    }

    /// At another handler's address.
    pub(crate) fn at(self, address: SocketAddr) -> Setup {
        Setup { address, ..self }.annotation("http.address", &address.to_string())
    }

    /// `ctr run --detach`; where it fails, nothing is left to remove but the container.
    #[track_caller]
    pub(crate) fn try_start(&self, bed: &Bed) -> Output {
        bed.import(&self.image);
        let (log, pid) = (format!("file://{}", log_of(&self.id)), pid_file_of(&self.id));
        let run = ["run", "--detach", "--net-host", "--log-uri", &log, "--pid-file", &pid];
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let what = ["--runtime", RUNTIME, "--platform", PLATFORM, self.image.name(), &self.id];
        bed.ctr(&[&run, &flags[..], &what].concat()).run()
    }

    /// The same, of a handler that starts; it accepts connections now.
    #[track_caller]
    pub(crate) fn start(self, bed: &Bed) -> Handler<'_> {
        self.try_start(bed).ok();
        let pid = fs::read_to_string(bed.path(pid_file_of(&self.id))).expect("the pid file");
        let pid = pid.trim().parse().expect("a pid");
        Handler { bed, id: self.id, address: self.address, pid, over: false }
    }
}

fn log_of(id: &str) -> String {
    format!("/run/bed/{id}.log")
}

fn pid_file_of(id: &str) -> String {
    format!("/run/bed/{id}.pid")
}

/// A handler that runs; removed when dropped, even by a failed test.
pub(crate) struct Handler<'bed> {
    pub(crate) bed: &'bed Bed,
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    /// Of its init, in the bed.
    pid: u32,
    over: bool,
}

impl<'bed> Handler<'bed> {
    /// One that has no annotation but its address.
    #[track_caller]
    pub(crate) fn start(bed: &'bed Bed, id: &str, guest: Guest) -> Handler<'bed> {
        Setup::new(id, guest).start(bed)
    }

    /// A connection of HTTP/1.1.
    pub(crate) async fn connect(&self) -> Connection {
        self.connect_by(Version::Http1).await
    }

    pub(crate) async fn connect_by(&self, version: Version) -> Connection {
        Connection::open(self.address, version).await.unwrap_or_else(|error| panic!("{}: {error:#}", self.id))
    }

    /// Panics unless it answers a request on a connection of its own.
    pub(crate) async fn assert_serves(&self) {
        for version in Version::ALL {
            let answer = self.connect_by(version).await.get("/").await;
            let answer = answer.unwrap_or_else(|error| panic!("{} over {version:?}: {error:#}", self.id)).expect(200);
            assert!(answer.text().starts_with("hello"), "{answer}");
        }
    }

    /// What it printed so far, on either stream.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.bed.path(log_of(&self.id))).unwrap_or_default()
    }

    /// Waits until it has printed all of these.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, texts: &[&str]) {
        let deadline = Instant::now() + LOGS_WITHIN;
        while let Some(missing) = texts.iter().find(|text| !self.log().contains(**text)) {
            assert!(Instant::now() < deadline, "no {missing:?} in the log of {}:\n{}", self.id, self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Memory of its init in bytes: what is resident now, and the most that ever was. Source: proc_pid_status(5).
    #[track_caller]
    pub(crate) fn resident(&self) -> (u64, u64) {
        let status = fs::read_to_string(self.bed.path(format!("/proc/{}/status", self.pid))).expect("its status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB"));
            line.and_then(|kibibytes| kibibytes.trim().parse::<u64>().ok()).expect("a size in kB") << 10
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Sends SIGTERM.
    #[track_caller]
    pub(crate) fn terminate(&self) {
        self.bed.ctr(&["tasks", "kill", "--signal", "SIGTERM", &self.id]).run().ok();
    }

    /// Waits for its end, which is to have this exit code, and removes it. Nothing is left then.
    #[track_caller]
    pub(crate) fn assert_ends(mut self, status: i32) {
        wait_for_status(self.bed, &self.id, "STOPPED");
        self.over = true;
        if status == 0 {
            // `ctr` is silent about this one.
            let removed = self.bed.ctr(&["tasks", "rm", &self.id]).run().ok();
            assert!(!removed.stderr.contains("exit code"), "{removed}\n{}", self.log());
            self.bed.ctr(&["containers", "rm", &self.id]).run().ok();
        } else {
            remove_ended(self.bed, &self.id, status);
        }
        self.bed.assert_gone(&self.id);
    }
}

impl Drop for Handler<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of {}\n{}", self.id, self.log());
        }
        if !self.over {
            // It may have ended.
            let _ = self.bed.ctr(&["tasks", "rm", "--force", &self.id]).try_run();
            let _ = self.bed.ctr(&["containers", "rm", &self.id]).try_run();
        }
    }
}
