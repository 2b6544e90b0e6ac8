//! The image of the node installer: the programs of an installation, and nothing else.

use std::{fs, io, path::Path};

use crate::Image;

/// What pods run by, and who brings it. Not `lighter`: nobody calls it there, and it needs the node's C library.
pub const PROGRAMS: &[&str] = &[
    "containerd-shim-lighter-v1",
    "lighter-compile",
    "lighter-fetch",
    "lighter-native",
    "lighter-node",
    "lighter-wamr",
    "lighter-wasmtime",
];

/// For nodes that have the library, on which the others don't depend.
const OPTIONAL: &[&str] = &["lighter-wasmedge", "lighter-compile-wasmedge"];

/// An image from scratch of a folder that `make install` filled: its programs in `/bin`.
///
/// # Errors
/// One that is needed can't be read.
pub fn installer_image(name: &str, programs: &Path) -> io::Result<Image> {
    let mut image = Image::new(name).of_host().entrypoint(&["/bin/lighter-node"]);
    let optional = OPTIONAL.iter().filter(|name| programs.join(name).exists());
    for program in PROGRAMS.iter().chain(optional) {
        let bytes = fs::read(programs.join(program))
            .map_err(|error| io::Error::new(error.kind(), format!("read {program}: {error}")))?;
        image = image.file(&format!("/bin/{program}"), bytes);
    }
    Ok(image)
}

/// Whether a program needs no loader, and so no libraries: it has no segment `PT_INTERP`. Source: elf(5), of 64 bits.
#[must_use]
pub fn is_static(program: &[u8]) -> bool {
    const PT_INTERP: usize = 3;
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let headers = || Some((number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?));
    let Some((offset, size, count)) = headers() else { return false };
    program.starts_with(b"\x7fELF")
        && (0..count).all(|index| number(offset + index * size, 4).is_some_and(|kind| kind != PT_INTERP))
}
