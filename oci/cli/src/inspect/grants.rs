//! What a binary would be given, and what of that it can ask for.

use lighter_oci::Kind;
use serde::Serialize;

use super::Binary;

/// One thing that a guest may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Grant {
    pub(crate) what: &'static str,
    /// Whether the binary imports what it takes to use it.
    pub(crate) imported: bool,
    /// What a container gets by default.
    pub(crate) container: &'static str,
    /// What `lighter run` gives by default.
    pub(crate) run: &'static str,
}

/// The interfaces or, of WASI 0.1, functions that a grant is used by.
struct Row {
    what: &'static str,
    container: &'static str,
    run: &'static str,
    functions: &'static [&'static str],
    interfaces: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        what: "arguments",
        container: "the image's and the user's",
        run: "the image's, or after --",
        functions: &["args_get"],
        interfaces: &["wasi:cli/environment"],
    },
    Row {
        what: "environment",
        container: "the image's and the user's",
        run: "the image's, --env",
        functions: &["environ_get"],
        interfaces: &["wasi:cli/environment"],
    },
    Row {
        what: "standard streams",
        container: "the container's",
        run: "the caller's",
        functions: &["fd_read", "fd_write"],
        interfaces: &["wasi:cli/stdin", "wasi:cli/stdout", "wasi:cli/stderr"],
    },
    Row {
        what: "files",
        container: "the image's as /, volumes",
        run: "a copy of the image's, --dir",
        functions: &["path_open", "fd_prestat_get"],
        interfaces: &["wasi:filesystem/preopens"],
    },
    Row {
        what: "clocks, random numbers",
        container: "yes",
        run: "yes",
        functions: &["clock_time_get", "poll_oneoff", "random_get"],
        interfaces: &["wasi:clocks/", "wasi:random/"],
    },
    // WASI 0.1 has no function that opens a socket; WasmEdge and WAMR add one.
    Row {
        what: "TCP",
        container: "the container's network",
        run: "none (--port, --network)",
        functions: &["sock_open"],
        interfaces: &["wasi:sockets/tcp", "wasi:sockets/types"],
    },
    Row {
        what: "UDP",
        container: "the container's network",
        run: "none (--network)",
        functions: &["sock_open"],
        interfaces: &["wasi:sockets/udp", "wasi:sockets/types"],
    },
    Row {
        what: "name lookup",
        container: "the container's resolver",
        run: "none (--network)",
        functions: &["sock_getaddrinfo"],
        interfaces: &["wasi:sockets/ip-name-lookup"],
    },
    Row {
        what: "HTTP requests",
        container: "the container's network",
        run: "none (--network)",
        functions: &[],
        interfaces: &["wasi:http/outgoing-handler", "wasi:http/client"],
    },
];

/// What there is to grant, in the same order for every binary.
pub(crate) fn grants(binary: &Binary) -> Vec<Grant> {
    ROWS.iter()
        .map(|row| Grant { what: row.what, imported: imports(binary, row), container: row.container, run: row.run })
        .collect()
}

fn imports(binary: &Binary, row: &Row) -> bool {
    match binary.kind {
        Kind::Module => binary.imports.iter().any(|item| {
            item.module.as_deref().is_some_and(|module| module.starts_with("wasi_"))
                && row.functions.contains(&&*item.name)
        }),
        Kind::Component => binary.imports.iter().any(|item| {
            let interface = item.name.split('@').next().unwrap_or_default();
            row.interfaces.iter().any(|wanted| {
                interface == *wanted
                    || (wanted.ends_with('/') && interface.starts_with(wanted))
                    // `tcp-create-socket` and its like.
                    || interface.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('-'))
            })
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Vec<&'static str> {
        let binary = Binary::parse("test", &wat::parse_str(text).unwrap()).unwrap();
        grants(&binary).into_iter().filter(|grant| grant.imported).map(|grant| grant.what).collect()
    }

    #[test]
    fn tells_what_a_binary_can_ask_for() {
        let p1 = |name: &str| format!(r#"(module (import "wasi_snapshot_preview1" "{name}" (func)))"#);
        assert_eq!(asked(&p1("args_get")), ["arguments"]);
        assert_eq!(asked(&p1("path_open")), ["files"]);
        assert_eq!(asked(&p1("sock_recv")), [""; 0]);
        assert_eq!(asked(r#"(module (import "env" "path_open" (func)))"#), [""; 0]);
        let p2 = |name: &str| format!(r#"(component (import "{name}" (instance)))"#);
        assert_eq!(asked(&p2("wasi:cli/environment@0.2.3")), ["arguments", "environment"]);
        assert_eq!(asked(&p2("wasi:sockets/tcp-create-socket@0.2.0")), ["TCP"]);
        assert_eq!(asked(&p2("wasi:sockets/udp@0.2.0")), ["UDP"]);
        assert_eq!(asked(&p2("wasi:sockets/ip-name-lookup@0.2.0")), ["name lookup"]);
        assert_eq!(asked(&p2("wasi:sockets/types@0.3.0")), ["TCP", "UDP"]);
        assert_eq!(asked(&p2("wasi:sockets/network@0.2.0")), [""; 0]);
        assert_eq!(asked(&p1("sock_open")), ["TCP", "UDP"]);
        assert_eq!(asked(&p2("wasi:http/outgoing-handler@0.2.0")), ["HTTP requests"]);
        assert_eq!(asked(&p2("wasi:http/client@0.3.0")), ["HTTP requests"]);
        assert_eq!(asked(&p2("wasi:http/types@0.2.0")), [""; 0]);
        assert_eq!(asked(&p2("wasi:clocks/monotonic-clock@0.2.0")), ["clocks, random numbers"]);
    }
}
