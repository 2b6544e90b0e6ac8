//! How containerd asks for a daemon, and how it wants to be answered: three generations of one protocol.
//!
//! | containerd | asks by | is answered by |
//! |---|---|---|
//! | 1.x | flags and environment, runtime options on stdin | JSON, or the bare address before 1.7 |
//! | 2.0 – 2.2 | the same, `MAX_SHIM_VERSION=3` | JSON |
//! | 2.3 – | flags, and `BootstrapParams` on stdin | `BootstrapResult` |
//!
//! `containerd-shim` knows them too, but keeps its decoder private and always answers version 3, which 1.x refuses.

use std::{
    env,
    io::{self, IsTerminal, Read},
    os::fd::AsFd,
};

use containerd_shim::{Flags, StartOpts};
use containerd_shim_protos::{
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::{Message, well_known_types::any::Any},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
};

/// Bytes that are read from stdin at most; containerd's own bound.
const MAX_INPUT: u64 = 10 << 20;
/// The newest version of the task API that we speak.
const NEWEST: i32 = 3;
/// What a containerd that doesn't say takes.
const OLDEST: i32 = 2;

/// In which form the answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Protobuf,
    Json { version: i32 },
}

impl Reply {
    /// The answer's bytes for a daemon at `address`.
    pub(crate) fn encode(self, address: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Protobuf => BootstrapResult {
                version: NEWEST,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()
            .map_err(io::Error::other),
            Self::Json { version } => Ok(serde_json::to_vec(
                &serde_json::json!({"version": version, "address": address, "protocol": "ttrpc"}),
            )?),
        }
    }
}

/// Reads the request of the `start` action.
pub(crate) fn read(flags: &Flags) -> io::Result<(StartOpts, Reply)> {
    let input = read_stdin()?;
    let environment = |name: &str| env::var(name).unwrap_or_default();
    Ok(decode(&input, flags, &environment))
}

/// Reads what was piped in, without ever waiting for somebody who pipes nothing.
pub(crate) fn read_stdin() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let kind = FileType::from_raw_mode(rustix::fs::fstat(stdin.as_fd())?.st_mode);
    if stdin.is_terminal() || !matches!(kind, FileType::Fifo | FileType::RegularFile | FileType::Socket) {
        return Ok(Vec::new());
    }
    // containerd has written before it starts us, or writes at once; an inherited pipe may stay open and silent.
    let patience = Timespec { tv_sec: 2, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&patience))? == 0 {
        return Ok(Vec::new());
    }
    let mut input = Vec::new();
    stdin.lock().take(MAX_INPUT).read_to_end(&mut input)?;
    Ok(input)
}

fn decode(input: &[u8], flags: &Flags, environment: &dyn Fn(&str) -> String) -> (StartOpts, Reply) {
    let params = BootstrapParams::parse_from_bytes(input).ok();
    // Runtime options, an `Any`, decode as parameters too: their type's name is then the instance.
    if let Some(params) = params.filter(|p| p.instance_id == flags.id && p.namespace == flags.namespace) {
        let mut options = StartOpts::from(params);
        options.debug |= flags.debug;
        return (options, Reply::Protobuf);
    }
    let first = |values: [String; 2]| values.into_iter().find(|v| !v.is_empty()).unwrap_or_default();
    let options = StartOpts {
        id: flags.id.clone(),
        namespace: flags.namespace.clone(),
        address: first([flags.address.clone(), environment("GRPC_ADDRESS")]),
        ttrpc_address: environment("TTRPC_ADDRESS"),
        publish_binary: flags.publish_binary.clone(),
        debug: flags.debug,
        extensions: Any::parse_from_bytes(input).ok().filter(|any| !any.type_url.is_empty()).into_iter().collect(),
        ..StartOpts::default()
    };
    let version = environment("MAX_SHIM_VERSION").parse().map_or(OLDEST, |newest: i32| newest.clamp(OLDEST, NEWEST));
    (options, Reply::Json { version })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use containerd_shim_protos::shim::oci::Options;

    use super::*;

    fn flags() -> Flags {
        Flags { id: "c1".to_owned(), namespace: "ns".to_owned(), address: "/run/c.sock".to_owned(), ..Flags::default() }
    }

    fn environment(newest: &'static str) -> impl Fn(&str) -> String {
        move |name| match name {
            "TTRPC_ADDRESS" => "/run/c.sock.ttrpc".to_owned(),
            "MAX_SHIM_VERSION" => newest.to_owned(),
            _ => String::new(),
        }
    }

    #[test]
    fn each_generation_gets_its_answer() {
        for (newest, version) in [("", 2), ("2", 2), ("3", 3), ("4", 3), ("x", 2)] {
            let (options, reply) = decode(b"", &flags(), &environment(newest));
            assert_eq!(reply, Reply::Json { version }, "MAX_SHIM_VERSION={newest}");
            assert_eq!(options.ttrpc_address, "/run/c.sock.ttrpc");
        }
        let params = BootstrapParams {
            instance_id: "c1".to_owned(),
            namespace: "ns".to_owned(),
            containerd_ttrpc_address: "/run/t.sock".to_owned(),
            ..BootstrapParams::default()
        };
        let (options, reply) = decode(&params.write_to_bytes().unwrap(), &flags(), &environment("3"));
        assert_eq!((options.ttrpc_address.as_str(), reply), ("/run/t.sock", Reply::Protobuf));
    }

    #[test]
    fn runtime_options_are_not_taken_for_parameters() {
        for options in [Options::default(), Options { shim_cgroup: "/shims".to_owned(), ..Options::default() }] {
            let any = Any::pack(&options).unwrap().write_to_bytes().unwrap();
            let (start, reply) = decode(&any, &flags(), &environment("2"));
            assert_eq!(reply, Reply::Json { version: 2 });
            assert_eq!(start.extension::<Options>().unwrap(), Some(options));
        }
        assert!(decode(&[0xff, 0xfe, 1], &flags(), &environment("")).0.extensions.is_empty());
    }

    #[test]
    fn answers_are_what_containerd_reads() {
        let json = Reply::Json { version: 2 }.encode("unix:///a").unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value, serde_json::json!({"version": 2, "address": "unix:///a", "protocol": "ttrpc"}));
        let result = BootstrapResult::parse_from_bytes(&Reply::Protobuf.encode("unix:///a").unwrap()).unwrap();
        assert_eq!((result.version, result.address.as_str()), (3, "unix:///a"));
    }
}
