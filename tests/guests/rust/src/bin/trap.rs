//! Panics some calls deep; a panic aborts, hence traps.

fn main() {
    outer(std::env::args().count());
}

#[inline(never)]
fn outer(count: usize) {
    inner(count + 1);
}

#[inline(never)]
fn inner(count: usize) {
    assert!(count == 0, "the guest panics on purpose");
}
