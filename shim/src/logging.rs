//! The daemon's log: lines in containerd's own format into the FIFO that it reads, each with id and namespace.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt};

use containerd_shim::logger::FifoLogger;
use log::{LevelFilter, Log, Metadata, Record, kv::ToValue};

/// The FIFO's name in the bundle, which is the daemon's first working directory.
const FIFO: &str = "log";

struct Tagged {
    inner: FifoLogger,
    id: String,
    namespace: String,
}

impl Log for Tagged {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }
    fn log(&self, record: &Record<'_>) {
        let tags = [
            ("runtime", "io.containerd.lighter.v1".to_value()),
            ("namespace", self.namespace.to_value()),
            ("id", self.id.to_value()),
        ];
        let tagged =
            Record::builder().metadata(record.metadata().clone()).args(*record.args()).key_values(&tags).build();
        self.inner.log(&tagged);
    }
    fn flush(&self) {
        self.inner.flush();
    }
}

/// Installs the log. Without the FIFO (a daemon that was started by hand) there is none.
pub(crate) fn install(id: &str, namespace: &str, debug: bool) -> io::Result<()> {
    // Open for both: a containerd that restarts is no broken pipe. Non-blocking: one that hangs must not stop us.
    let file = match OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(FIFO) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let tagged = Tagged { inner: FifoLogger::with_file(file), id: id.to_owned(), namespace: namespace.to_owned() };
    log::set_boxed_logger(Box::new(tagged)).map_err(io::Error::other)?;
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    Ok(())
}
