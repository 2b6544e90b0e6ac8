//! What the dynamic linker says of a runner that it can't load, in words for who installed it.
//!
//! An engine may be a shared library of the node's. Where that is missing or of another version, the runner ends before
//! its first instruction, with exit code 127 and a line on its standard error. Source: glibc's `elf/rtld.c`,
//! `elf/dl-load.c`, `elf/dl-lookup.c`, `elf/dl-version.c`.

/// The exit code of a program that the dynamic linker gives up on.
const GIVEN_UP: u32 = 127;
/// What else there is to do about it.
const CURE: &str = "or choose another engine with the annotation run.lighter.engine";

/// What is wrong, if `said` is the dynamic linker's, and what to do about it.
pub(crate) fn explain(status: u32, said: &str) -> Option<String> {
    if status != GIVEN_UP {
        return None;
    }
    said.lines()
        .find_map(|line| missing_library(line).or_else(|| missing_version(line)).or_else(|| missing_symbol(line)))
}

/// `PROGRAM: error while loading shared libraries: libx.so.0: cannot open shared object file: No such file or directory`
fn missing_library(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(": error while loading shared libraries: ")?;
    let (library, why) = rest.split_once(": ")?;
    Some(if why.contains("No such file or directory") {
        format!("{library} not found: install {}, {CURE}", package(library))
    } else {
        format!("{library} can't be loaded: {why}; install {} anew, {CURE}", package(library))
    })
}

/// ``PROGRAM: FILE: version `VERSION' not found (required by FILE)``
fn missing_version(line: &str) -> Option<String> {
    let (before, rest) = line.split_once(": version `")?;
    let (version, after) = rest.split_once("' not found")?;
    let library = name(before.rsplit_once(": ").map_or(before, |(_, file)| file));
    let by = after.split_once("(required by ").and_then(|(_, by)| by.split_once(')'));
    let by = by.map_or("the runner", |(by, _)| name(by));
    Some(format!("{library} is too old: {by} needs {version} of it; install a newer {}, {CURE}", package(library)))
}

/// `PROGRAM: symbol lookup error: FILE: undefined symbol: SYMBOL`, and for a versioned one `, version VERSION`.
fn missing_symbol(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(": symbol lookup error: ")?;
    let (file, symbol) = rest.split_once(": undefined symbol: ")?;
    let symbol = symbol.split(',').next().unwrap_or(symbol);
    Some(format!(
        "a library of {} is of another version than it was built for: nobody has {symbol}; install the version that its \
         documentation names, {CURE}",
        name(file)
    ))
}

/// A file's name.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What Debian calls the package of a library: `libx.so.0` is in `libx0`, `libx2.so.0` in `libx2-0`.
/// Source: Debian Policy 8.1.
fn package(library: &str) -> String {
    match library.split_once(".so.") {
        Some((stem, version)) if stem.ends_with(|last: char| last.is_ascii_digit()) => format!("{stem}-{version}"),
        Some((stem, version)) => format!("{stem}{version}"),
        None => format!("the package that has {library}"),
    }
    .to_lowercase()
    .replace('_', "-")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_dynamic_linkers_sentences() {
        let table = [
            (
                "/usr/local/bin/lighter-x: error while loading shared libraries: libwasmedge.so.0: cannot open shared \
                 object file: No such file or directory",
                "libwasmedge.so.0 not found: install libwasmedge0, or choose another engine with the annotation \
                 run.lighter.engine",
            ),
            (
                "lighter-x: error while loading shared libraries: libA_b2.so.1: cannot open shared object file: No such \
                 file or directory",
                "libA_b2.so.1 not found: install liba-b2-1, or choose another engine with the annotation \
                 run.lighter.engine",
            ),
            (
                "lighter-x: error while loading shared libraries: libx.so: file too short",
                "libx.so can't be loaded: file too short; install the package that has libx.so anew, or choose another \
                 engine with the annotation run.lighter.engine",
            ),
            (
                "/usr/local/bin/lighter-x: symbol lookup error: /usr/local/bin/lighter-x: undefined symbol: \
                 WasmEdge_LogSetLevel",
                "a library of lighter-x is of another version than it was built for: nobody has WasmEdge_LogSetLevel; \
                 install the version that its documentation names, or choose another engine with the annotation \
                 run.lighter.engine",
            ),
            (
                "lighter-x: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by lighter-x)",
                "libc.so.6 is too old: lighter-x needs GLIBC_2.38 of it; install a newer libc6, or choose another engine \
                 with the annotation run.lighter.engine",
            ),
        ];
        for (said, expected) in table {
            assert_eq!(explain(127, said).as_deref(), Some(expected));
            // A second line may follow, and one may come before.
            assert_eq!(explain(127, &format!("warning\n{said}\nmore\n")).as_deref(), Some(expected));
            assert_eq!(explain(1, said), None);
        }
        assert_eq!(explain(127, "mount: version of nothing"), None);
        assert_eq!(explain(127, ""), None);
    }
}
