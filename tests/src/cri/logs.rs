//! Containers' logs as the kubelet reads them.
//!
//! Source: kubernetes, `pkg/kubelet/kuberuntime/logs`: `TIMESTAMP STREAM TAG TEXT`, a line each.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::{Bed, daemons::CONTAINERD_PID};

/// Whether a line of the log is a whole line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `F`: it is, or the last part of one.
    Full,
    /// `P`: more of it comes.
    Partial,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether it is whole.
    pub tag: Tag,
    /// Without its end.
    pub text: String,
}

impl Line {
    /// Of a log's text. None where it is no such line.
    pub(super) fn parse(line: &str) -> Option<Line> {
        let mut words = line.splitn(4, ' ');
        let (time, stream, tag, text) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let tag = match tag {
            "F" => Tag::Full,
            "P" => Tag::Partial,
            _ => return None,
        };
        (is_time(time) && matches!(stream, "stdout" | "stderr")).then(|| Line {
            time: time.to_owned(),
            stream: stream.to_owned(),
            tag,
            text: text.to_owned(),
        })
    }
}

/// Whether containerd has written all that it will: of a container that has ended, the last lines may be on their way. It
/// closes the file when it is done.
pub(super) fn is_complete(bed: &Bed, log: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let pid = fs::read_to_string(bed.path(CONTAINERD_PID)).unwrap_or_default();
    let open = fs::read_dir(bed.path(format!("/proc/{}/fd", pid.trim()))).into_iter().flatten().flatten();
    let log = identity(log);
    log.is_none() || open.map(|item| identity(&item.path())).all(|file| file != log)
}

/// `2006-01-02T15:04:05.999999999Z`, or with an offset in place of the `Z`.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let rest = rest.strip_prefix('.').map_or(rest, |fraction| fraction.trim_start_matches('0'));
    matches!(rest, "Z" | "+00:00" | "-00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let table = [
            ("2026-11-23T01:02:03.123456789Z stdout F a line", Some((Tag::Full, "a line"))),
            ("2026-11-23T01:02:03.1+02:00 stderr P part", Some((Tag::Partial, "part"))),
            ("2026-11-23T01:02:03Z stdout F ", Some((Tag::Full, ""))),
            ("2026-11-23 stdout F a", None),
            ("2026-11-23T01:02:03Z stdin F a", None),
            ("2026-11-23T01:02:03Z stdout X a", None),
            ("a", None),
        ];
        for (line, expected) in table {
            let parsed = Line::parse(line);
            assert_eq!(parsed.as_ref().map(|line| (line.tag, line.text.as_str())), expected, "{line}");
        }
    }
}
