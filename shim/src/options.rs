//! The runtime options of a Create: settings that containerd's or Docker's configuration has for a runtime.
//!
//! containerd's CRI, Docker and `ctr` send `runtimeoptions.v1.Options` to every runtime but runc. Source: containerd,
//! `api/types/runtimeoptions/v1/api.proto`; the package's name had a prefix before 1.7.

use std::path::Path;

use containerd_shim::bootstrap::any_is;
use containerd_shim_protos::{
    protobuf::{self, CodedInputStream, Message, rt::skip_field_for_tag, well_known_types::any::Any},
    shim::oci::Options as RuncOptions,
};
use lighter_oci::Config;

use crate::error::Error;

/// What to call settings that came without a file.
const ORIGIN: &str = "of the runtime's options";

/// `runtimeoptions.v1.Options`, as far as it is of use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Field 2. A file of the host's.
    config_path: String,
    /// Field 3. The settings themselves.
    config_body: Vec<u8>,
}

impl Options {
    fn parse(bytes: &[u8]) -> protobuf::Result<Self> {
        const LENGTH_DELIMITED: u32 = 2;
        const CONFIG_PATH: u32 = 2 << 3 | LENGTH_DELIMITED;
        const CONFIG_BODY: u32 = 3 << 3 | LENGTH_DELIMITED;
        let mut options = Self::default();
        let mut input = CodedInputStream::from_bytes(bytes);
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match tag {
                CONFIG_PATH => options.config_path = input.read_string()?,
                CONFIG_BODY => options.config_body = input.read_bytes()?,
                other => skip_field_for_tag(other, &mut input)?,
            }
        }
        Ok(options)
    }
}

/// The settings that the options hold. Those of other runtimes hold none.
///
/// # Errors
/// They, or the file that they name, can't be read or hold what isn't a setting.
pub(crate) fn config(options: &Any) -> Result<Config, Error> {
    let unreadable = |error: protobuf::Error| Error::Options(error.to_string());
    let none = Config { origin: ORIGIN.to_owned(), ..Config::default() };
    if any_is::<RuncOptions>(options) {
        let runc = RuncOptions::parse_from_bytes(&options.value).map_err(unreadable)?;
        return Ok(Config { systemd_cgroup: runc.systemd_cgroup.then_some(true), ..none });
    }
    let name = options.type_url.rsplit('/').next().unwrap_or_default();
    if name != "runtimeoptions.v1.Options" && !name.ends_with(".runtimeoptions.v1.Options") {
        return Ok(none);
    }
    let Options { config_path, config_body } = Options::parse(&options.value).map_err(unreadable)?;
    if !config_path.is_empty() {
        return Ok(Config::read(Path::new(&config_path))?);
    }
    let text = String::from_utf8(config_body).map_err(|error| Error::Options(error.to_string()))?;
    Ok(Config::parse(ORIGIN.to_owned(), &text)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As containerd encodes it: fields of type string and bytes.
    fn message(fields: &[(u8, &str)]) -> Vec<u8> {
        let field = |(number, text): &(u8, &str)| {
            [&[number << 3 | 2, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
        };
        fields.iter().flat_map(field).collect()
    }

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.to_owned(), value, ..Any::default() }
    }

    #[test]
    fn settings_come_in_a_body_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wamr.toml");
        std::fs::write(&path, "engine = \"wamr\"").unwrap();
        let path = path.to_str().unwrap();
        let body = "engine = \"wasmedge\"\nsystemd-cgroup = true";
        let table = [
            (vec![], (None, None)),
            (vec![(1, "whatever")], (None, None)),
            (vec![(3, body)], (Some("wasmedge"), Some(true))),
            (vec![(2, path)], (Some("wamr"), None)),
            (vec![(1, "toml"), (2, path), (3, body), (9, "of a later version")], (Some("wamr"), None)),
        ];
        for (fields, expected) in table {
            for url in ["runtimeoptions.v1.Options", "types.containerd.io/cri.runtimeoptions.v1.Options"] {
                let config = config(&any(url, message(&fields))).unwrap();
                assert_eq!((config.engine.as_deref(), config.systemd_cgroup), expected, "{url} {fields:?}");
            }
        }
    }

    #[test]
    fn runcs_options_say_whether_systemd_is_asked() {
        for yes in [false, true] {
            let runc = RuncOptions { systemd_cgroup: yes, binary_name: "crun".to_owned(), ..RuncOptions::default() };
            let options = any("containerd.runc.v1.Options", runc.write_to_bytes().unwrap());
            assert_eq!(config(&options).unwrap().systemd_cgroup, yes.then_some(true));
        }
        assert_eq!(config(&any("example.com/other.v1.Options", vec![1, 2, 3])).unwrap().engine, None);
    }

    #[test]
    fn what_can_not_be_read_is_an_error() {
        let url = "runtimeoptions.v1.Options";
        let table = [
            (vec![0x12, 0xff], "runtime options"),
            (vec![0x1a, 2, 0xff, 0xff], "runtime options"),
            (message(&[(3, "engin = \"wamr\"")]), "of the runtime's options: there is no setting \"engin\""),
            (message(&[(2, "/nonexistent/c.toml")]), "read configuration /nonexistent/c.toml: "),
        ];
        for (value, expected) in table {
            let error = config(&any(url, value)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
