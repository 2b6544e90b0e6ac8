//! Whether a program is an HTTP handler, and where `lighter run` serves it.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    net::{Ipv4Addr, SocketAddr},
};

use wasmparser::{BinaryReader, ComponentExportSectionReader, ComponentExternalKind};

use crate::inspect::Entry;

/// Where a handler is served that nobody gave a port: reached from this machine only.
pub(crate) const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// A component's section of exports. Source: component model `Binary.md`, "Component Definitions".
const EXPORTS: u8 = 11;
/// Bytes of it that are looked at.
const MOST: u64 = 1 << 20;

/// Whether a component is a handler and no command, by what it exports. Everything else in the file is passed over; what is
/// wrong with it the engine will tell.
pub(crate) fn is_handler(file: File) -> bool {
    let exports = instances(file).unwrap_or_default();
    Entry::of_interfaces(exports.iter().map(String::as_str)) == Some(Entry::Http)
}

/// The interfaces that a component exports, with their versions.
fn instances(mut file: File) -> io::Result<Vec<String>> {
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let mut preamble = [0; 8];
    reader.read_exact(&mut preamble)?;
    let mut names = Vec::new();
    if preamble != *b"\0asm\x0d\0\x01\0" {
        return Ok(names);
    }
    let mut id = [0];
    while reader.read(&mut id)? == 1 {
        let size = length(&mut reader)?;
        if id != [EXPORTS] {
            reader.seek_relative(size.into())?;
            continue;
        }
        let mut section = Vec::new();
        (&mut reader).take(u64::from(size).min(MOST)).read_to_end(&mut section)?;
        let exports = ComponentExportSectionReader::new(BinaryReader::new(&section, 0)).map_err(io::Error::other)?;
        for export in exports {
            let export = export.map_err(io::Error::other)?;
            if export.kind == ComponentExternalKind::Instance {
                names.push(export.name.full_name().into_owned());
            }
        }
    }
    Ok(names)
}

/// A `u32` in LEB128. Source: WebAssembly core spec §5.2.2.
fn length(reader: &mut impl Read) -> io::Result<u32> {
    let mut value = 0;
    for shift in (0..32).step_by(7) {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        value |= u32::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_handler_is_told_by_its_exports() {
        let exporting = |names: &[&str]| {
            let exports: String = names.iter().map(|name| format!(r#"(export "{name}" (instance $i))"#)).collect();
            format!(
                r#"(component (core module (memory 1) (data (i32.const 0) "{}"))
                    (import "a:b/c@0.1.0" (instance $i)) {exports})"#,
                "x".repeat(300)
            )
        };
        let table = [
            (exporting(&["wasi:http/incoming-handler@0.2.0"]), true),
            (exporting(&["wasi:http/incoming-handler@0.2.6", "my:own/x@0.1.0"]), true),
            (exporting(&["wasi:http/handler@0.3.0"]), true),
            (exporting(&["wasi:cli/run@0.2.0"]), false),
            (exporting(&["wasi:cli/run@0.2.0", "wasi:http/incoming-handler@0.2.0"]), false),
            (exporting(&[]), false),
            (
                r#"(component (component (import "a:b/c@0.1.0" (instance $i))
                (export "wasi:http/handler@0.3.0" (instance $i))))"#
                    .to_owned(),
                false,
            ),
            (r#"(module (func (export "_start")))"#.to_owned(), false),
        ];
        for (text, expected) in table {
            assert_eq!(is_handler(file(&wat::parse_str(&text).unwrap())), expected, "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_no_handler() {
        let sound = wat::parse_str(
            r#"(component (import "a:b/c@0.1.0" (instance $i)) (export "wasi:http/handler@0.3.0" (instance $i)))"#,
        )
        .unwrap();
        for end in 0..sound.len() {
            is_handler(file(&sound[..end]));
        }
        for bytes in
            [&b"\0asm\x0d\0\x01\0\x0b\xff\xff\xff\xff\x0f"[..], b"\0asm\x0d\0\x01\0\x0b\xff\xff\xff\xff\xff\xff", b""]
        {
            assert!(!is_handler(file(bytes)));
        }
    }
}
