//! The parent's side of the runner protocol.
