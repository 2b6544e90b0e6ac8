//! A component's interfaces as text.

use anyhow::{Context, Result, anyhow};
use wit_component::WitPrinter;

/// WIT, as `wasm-tools component wit` writes it.
#[derive(Debug)]
pub(crate) struct Wit {
    /// The component's own world: what it imports and exports.
    pub(crate) world: String,
    /// The packages of the interfaces that the world names.
    pub(crate) packages: String,
}

/// Reads the interfaces out of a valid component.
///
/// # Errors
/// They can't be written as WIT.
pub(crate) fn wit(bytes: &[u8]) -> Result<Wit> {
    let decoded = wit_component::decode(bytes).context("read the component's interfaces")?;
    let (resolve, own) = (decoded.resolve(), decoded.package());
    let print = |ids: &[_], whole: bool| -> Result<String> {
        let mut printer = WitPrinter::default();
        // Comments of strangers are for those who read the source.
        printer.emit_docs(false);
        for (index, id) in ids.iter().enumerate() {
            if index > 0 {
                wit_component::Output::newline(&mut printer.output);
            }
            printer.print_package(resolve, *id, whole).map_err(|error| anyhow!("write the interfaces: {error:#}"))?;
        }
        Ok(printer.output.to_string())
    };
    let others: Vec<_> = resolve.packages.iter().map(|(id, _)| id).filter(|id| *id != own).collect();
    Ok(Wit { world: print(&[own], true)?, packages: print(&others, false)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COMPONENT: &str = r#"(component
        (import "wasi:cli/exit@0.2.0" (instance $e (export "exit" (func (param "status" (result))))))
        (import "plain" (func (param "a" u32) (result string))))"#;

    #[test]
    fn writes_the_world_and_what_it_names() {
        let wit = wit(&wat::parse_str(COMPONENT).unwrap()).unwrap();
        assert!(wit.world.contains("import wasi:cli/exit@0.2.0;"), "{}", wit.world);
        assert!(wit.world.contains("import plain: func(a: u32) -> string;"), "{}", wit.world);
        assert!(wit.packages.contains("package wasi:cli@0.2.0 {"), "{}", wit.packages);
        assert!(wit.packages.contains("exit: func(status: result);"), "{}", wit.packages);
    }

    #[test]
    fn no_flipped_bit_panics() {
        let sound = wat::parse_str(COMPONENT).unwrap();
        for index in 0..sound.len() {
            let _ = super::wit(&sound[..index]);
            for bit in 0..8 {
                let mut flipped = sound.clone();
                flipped[index] ^= 1 << bit;
                let _ = super::wit(&flipped);
            }
        }
    }
}
