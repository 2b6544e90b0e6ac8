//! libcontainer's errors say that something failed; what exactly it only traces. This keeps the traces.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Writes every error event as a line to this process's standard error, also after libcontainer put the guest's there.
/// The daemon reads them when creation fails.
pub(crate) fn install() -> io::Result<()> {
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    // It fails only where one is installed already.
    let _ = tracing::subscriber::set_global_default(ErrorLines { stderr, spans: AtomicU64::new(1) });
    Ok(())
}

struct ErrorLines {
    stderr: File,
    spans: AtomicU64,
}

impl Subscriber for ErrorLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        line.0.push('\n');
        let _ = (&self.stderr).write_all(line.0.as_bytes());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { ", " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name}: {value:?}"),
        };
    }
}
