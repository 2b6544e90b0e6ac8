//! Takes from a module what means nothing to it and something to WasmEdge.

/// Magic and version of a module.
const HEADER: usize = 8;
/// The id of a custom section. Source: the core specification, 5.5.2.
const CUSTOM: u8 = 0;

/// The module without its custom sections: names, debug information, and what WasmEdge takes for native code that
/// belongs to the module, which must never come from a guest. `None` where the sections' lengths are wrong.
#[must_use]
pub fn without_custom(module: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = module.split_at_checked(HEADER)?;
    let mut kept = Vec::with_capacity(module.len());
    kept.extend_from_slice(header);
    while let Some((&id, after_id)) = rest.split_first() {
        let (len, body) = leb128(after_id)?;
        let end = rest.len().checked_sub(body.len())?.checked_add(usize::try_from(len).ok()?)?;
        let (section, next) = rest.split_at_checked(end)?;
        if id != CUSTOM {
            kept.extend_from_slice(section);
        }
        rest = next;
    }
    Some(kept)
}

/// An unsigned 32-bit number, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value: u64 = 0;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn custom_sections_go_and_all_else_stays() {
        let header = b"\0asm\x01\0\0\0".as_slice();
        let types = [1, 4, 1, 0x60, 0, 0].as_slice();
        let native = [0, 9, 8, b'w', b'a', b's', b'm', b'e', b'd', b'g', b'e'].as_slice();
        // A length may be written longer than it need be.
        let long = [0, 0x81, 0x80, 0x00, 0].as_slice();
        let table: &[(&[&[u8]], Option<&[&[u8]]>)] = &[
            (&[header], Some(&[header])),
            (&[header, native, types], Some(&[header, types])),
            (&[header, types, native, long], Some(&[header, types])),
            (&[b"\0asm"], None),
            (&[header, &[0, 9, 8]], None),
            (&[header, &[1]], None),
            (&[header, &[1, 0xff, 0xff, 0xff, 0xff, 0xff]], None),
            (&[header, &[1, 0xff, 0xff, 0xff, 0xff, 0x0f]], None),
        ];
        for (module, expected) in table {
            assert_eq!(without_custom(&module.concat()), expected.map(|parts| parts.concat()), "{module:?}");
        }
    }
}
