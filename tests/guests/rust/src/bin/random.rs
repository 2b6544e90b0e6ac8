//! Random bytes, as the standard library's hash maps get them: whether two keys differ, and differ from zero.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

unsafe extern "C" {
    // wasi-libc's: fills a buffer of at most 256 bytes.
    fn getentropy(buffer: *mut u8, length: usize) -> i32;
}

fn main() {
    let mut bytes = [0u8; 256];
    // SAFETY: the buffer is as long as it is said to be.
    let result = unsafe { getentropy(bytes.as_mut_ptr(), bytes.len()) };
    assert_eq!(result, 0, "getentropy");
    let distinct: HashSet<u8> = bytes.into_iter().collect();
    // Of 256 values, 256 draws leave out a third; fewer than 100 come up once in more years than there are.
    println!("bytes {}", if distinct.len() > 100 { "random" } else { "not random" });
    let hashes = [(); 2].map(|()| RandomState::new().hash_one("text"));
    println!("hashes {}", if hashes[0] != hashes[1] { "differ" } else { "are the same" });
}
