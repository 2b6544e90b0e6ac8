//! What CRI says of a pod: the parts of `runtime.v1.PodSandboxConfig` that somebody without a pause container has to see to.
//!
//! Source: `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.

use std::collections::BTreeMap;

use containerd_shim_protos::protobuf::{
    self, CodedInputStream,
    rt::{WireType, skip_field_for_tag},
    well_known_types::any::Any,
};

use crate::error::Error;

/// The message's name, with the package that CRI has.
const NAME: &str = "runtime.v1.PodSandboxConfig";

/// Whose a namespace is. Source: CRI's `NamespaceMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The pod's.
    Pod,
    /// Each container's own, or another container's.
    #[default]
    Container,
    /// The host's.
    Node,
}

/// What a pod is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodConfig {
    /// Empty where the host's is right.
    pub(crate) hostname: String,
    /// `None` where the host's resolver configuration is right.
    pub(crate) dns: Option<Dns>,
    /// Whose System V IPC and POSIX message queues.
    pub(crate) ipc: Mode,
    /// Whose process ids.
    pub(crate) processes: Mode,
    /// Whose user ids.
    pub(crate) users: Mode,
    /// Names and values.
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// For `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl Default for PodConfig {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            dns: None,
            ipc: Mode::Pod,
            processes: Mode::Container,
            users: Mode::Node,
            sysctls: BTreeMap::new(),
        }
    }
}

impl PodConfig {
    /// Reads it from the options of a pod, which may have none.
    ///
    /// # Errors
    /// They are damaged. Those of somebody other than CRI say nothing.
    pub(crate) fn read(options: Option<&Any>) -> Result<Self, Error> {
        let Some(options) = options.filter(|any| any.type_url.rsplit('/').next() == Some(NAME)) else {
            return Ok(Self::default());
        };
        Self::parse(&options.value)
            .map_err(|error| Error::Request { what: "configuration of the pod", why: error.to_string() })
    }

    fn parse(bytes: &[u8]) -> protobuf::Result<Self> {
        let mut config = Self::default();
        fields(bytes, |field| {
            match field {
                (2, Value::Bytes(name)) => config.hostname = text(name)?,
                (4, Value::Bytes(dns)) => config.dns = Some(Dns::parse(dns)?),
                (8, Value::Bytes(linux)) => config.parse_linux(linux)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(config)
    }

    /// `LinuxPodSandboxConfig`.
    fn parse_linux(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        fields(bytes, |field| {
            match field {
                // `LinuxSandboxSecurityContext`, of which the first is `NamespaceOption`.
                (2, Value::Bytes(security)) => fields(security, |field| match field {
                    (1, Value::Bytes(namespaces)) => self.parse_namespaces(namespaces),
                    _ => Ok(()),
                })?,
                (3, Value::Bytes(entry)) => {
                    let (mut name, mut value) = (String::new(), String::new());
                    fields(entry, |field| {
                        match field {
                            (1, Value::Bytes(bytes)) => name = text(bytes)?,
                            (2, Value::Bytes(bytes)) => value = text(bytes)?,
                            _ => {}
                        }
                        Ok(())
                    })?;
                    self.sysctls.insert(name, value);
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// `NamespaceOption`. What isn't there has the value 0: the pod's.
    fn parse_namespaces(&mut self, bytes: &[u8]) -> protobuf::Result<()> {
        self.processes = Mode::Pod;
        fields(bytes, |field| {
            match field {
                (2, Value::Number(mode)) => self.processes = Mode::of(mode),
                (3, Value::Number(mode)) => self.ipc = Mode::of(mode),
                // `UserNamespace`, of which the first is a mode.
                (5, Value::Bytes(users)) => {
                    self.users = Mode::Pod;
                    fields(users, |field| {
                        if let (1, Value::Number(mode)) = field {
                            self.users = Mode::of(mode);
                        }
                        Ok(())
                    })?;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

impl Dns {
    fn parse(bytes: &[u8]) -> protobuf::Result<Self> {
        let mut dns = Self::default();
        fields(bytes, |field| {
            match field {
                (1, Value::Bytes(server)) => dns.servers.push(text(server)?),
                (2, Value::Bytes(search)) => dns.searches.push(text(search)?),
                (3, Value::Bytes(option)) => dns.options.push(text(option)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(dns)
    }
}

impl Mode {
    fn of(number: u64) -> Self {
        match number {
            0 => Self::Pod,
            2 => Self::Node,
            _ => Self::Container,
        }
    }
}

/// A field's value, as far as it is of use here.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Calls `each` with every field of a message, by its number.
fn fields(bytes: &[u8], mut each: impl FnMut((u32, Value<'_>)) -> protobuf::Result<()>) -> protobuf::Result<()> {
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let number = tag >> 3;
        match WireType::new(tag & 7) {
            Some(WireType::Varint) => each((number, Value::Number(input.read_raw_varint64()?)))?,
            Some(WireType::LengthDelimited) => each((number, Value::Bytes(&input.read_bytes()?)))?,
            _ => skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> protobuf::Result<String> {
    String::from_utf8(bytes.to_vec())
        .map_err(|error| protobuf::Error::from(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A field of bytes, as protobuf has it.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    fn config(fields: &[Vec<u8>]) -> PodConfig {
        let url = format!("types.googleapis.com/{NAME}");
        PodConfig::read(Some(&Any { type_url: url, value: fields.concat(), ..Any::default() })).unwrap()
    }

    /// `linux.security_context.namespace_options`.
    fn namespaces(options: &[Vec<u8>]) -> Vec<u8> {
        bytes(8, &bytes(2, &bytes(1, &options.concat())))
    }

    #[test]
    fn what_cri_says_is_understood() {
        let plain = PodConfig::default();
        let dns = Dns { servers: vec!["10.0.0.1".into(), "::1".into()], searches: vec!["a.b".into()], options: vec![] };
        let sysctl = |name: &[u8], value: &[u8]| bytes(3, &[bytes(1, name), bytes(2, value)].concat());
        let table = [
            (vec![], plain.clone()),
            (vec![bytes(1, b"\x0a\x01x"), bytes(2, b"box")], PodConfig { hostname: "box".into(), ..plain.clone() }),
            (
                vec![bytes(4, &[bytes(1, b"10.0.0.1"), bytes(1, b"::1"), bytes(2, b"a.b")].concat())],
                PodConfig { dns: Some(dns), ..plain.clone() },
            ),
            (
                vec![bytes(8, &[sysctl(b"net.x", b"1"), sysctl(b"net.y", b"")].concat())],
                PodConfig {
                    sysctls: BTreeMap::from([("net.x".into(), "1".into()), ("net.y".into(), String::new())]),
                    ..plain.clone()
                },
            ),
            (vec![namespaces(&[])], PodConfig { processes: Mode::Pod, ..plain.clone() }),
            (
                vec![namespaces(&[number(2, 1), number(3, 2), bytes(5, &number(1, 2))])],
                PodConfig { ipc: Mode::Node, ..plain.clone() },
            ),
            (
                vec![namespaces(&[number(2, 2), bytes(5, &[])])],
                PodConfig { processes: Mode::Node, users: Mode::Pod, ..plain.clone() },
            ),
        ];
        for (fields, expected) in table {
            assert_eq!(config(&fields), expected, "{fields:?}");
        }
        let other = Any { type_url: "example.com/other".into(), value: vec![0xff], ..Any::default() };
        assert_eq!(PodConfig::read(Some(&other)).unwrap(), plain);
        assert_eq!(PodConfig::read(None).unwrap(), plain);
    }

    #[test]
    fn damage_is_an_error() {
        for value in [vec![0x12, 0xff], bytes(2, &[0xff]), bytes(8, &[0x12, 9])] {
            let any = Any { type_url: NAME.to_owned(), value: value.clone(), ..Any::default() };
            assert!(PodConfig::read(Some(&any)).is_err(), "{value:?}");
        }
    }
}
