//! The first bytes of a file: what is taken for WebAssembly has its magic number, and nothing else is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lighter_oci::{Kind, sniff};

fuzz_target!(|head: &[u8]| {
    let expected = match head {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Some(Kind::Module),
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Some(Kind::Component),
        _ => None,
    };
    match sniff(head) {
        Ok(kind) => assert_eq!(Some(kind), expected),
        Err(why) => assert!(expected.is_none() && !why.is_empty(), "{why}"),
    }
});
