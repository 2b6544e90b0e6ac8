//! The columns: an engine, and the version of WASI that the guest is for.

/// In the order of README's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Core modules on Wasmtime.
    P1,
    /// Components for WASI 0.2 on Wasmtime.
    P2,
    /// Components for WASI 0.3 on Wasmtime.
    P3,
    /// Core modules on WasmEdge.
    Wasmedge,
    /// Core modules on WAMR.
    Wamr,
}

impl Target {
    pub(super) const ALL: [Target; 5] = [Target::P1, Target::P2, Target::P3, Target::Wasmedge, Target::Wamr];

    /// As `cases.rs` writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Target::P1 => "p1",
            Target::P2 => "p2",
            Target::P3 => "p3",
            Target::Wasmedge => "wasmedge",
            Target::Wamr => "wamr",
        }
    }

    /// The column's head in README.
    pub(super) fn title(self) -> &'static str {
        match self {
            Target::P1 => "Wasmtime, WASI 0.1",
            Target::P2 => "Wasmtime, WASI 0.2",
            Target::P3 => "Wasmtime, WASI 0.3",
            Target::Wasmedge => "WasmEdge",
            Target::Wamr => "WAMR",
        }
    }

    /// As users write it in `run.lighter.engine`.
    pub(super) fn engine(self) -> &'static str {
        match self {
            Target::P1 | Target::P2 | Target::P3 => "wasmtime",
            Target::Wasmedge => "wasmedge",
            Target::Wamr => "wamr",
        }
    }

    pub(super) fn is_component(self) -> bool {
        matches!(self, Target::P2 | Target::P3)
    }
}
