//! What a module or a component says of itself.

use std::io::Read;

use anyhow::{Result, anyhow, bail};
use lighter_oci::{Kind, sniff};
use serde::Serialize;
use wasmparser::{
    BinaryReader, ComponentExternalKind, ComponentTypeRef, CompositeInnerType, MemoryType, Parser, Payload,
    ValidPayload, Validator, WasmFeatures,
    types::{EntityType, Types, TypesRef},
};

use super::{features, metadata::Metadata};

/// Bytes that a module may have. Source: WebAssembly JavaScript interface, "implementation-defined limits": 1 GiB.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

/// A valid module or component.
#[derive(Debug, Serialize)]
pub(crate) struct Binary {
    pub(crate) kind: Kind,
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) imports: Vec<Item>,
    pub(crate) exports: Vec<Item>,
    /// Those that it has itself; of a component, those of the modules in it.
    pub(crate) memories: Vec<Memory>,
    /// Proposals without which it is not valid, such as `simd`.
    pub(crate) features: Vec<String>,
    /// The same as a set.
    #[serde(skip)]
    pub(crate) needed: WasmFeatures,
    pub(crate) metadata: Metadata,
}

/// An import or an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Item {
    /// Of a module's import, the first half of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) module: Option<String>,
    /// Of a component, an interface with its version, or a plain name.
    pub(crate) name: String,
    /// Such as `func (i32, i32) -> i32`, or `instance`.
    #[serde(rename = "type")]
    pub(crate) ty: String,
}

/// A linear memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Bytes at the start.
    pub(crate) initial: u64,
    /// Bytes that it can grow to, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) maximum: Option<u64>,
    /// For threads.
    pub(crate) shared: bool,
    /// Addressed by 64 bits.
    pub(crate) memory64: bool,
}

impl Binary {
    /// Looks into all of `bytes`, which `name` names in messages.
    ///
    /// # Errors
    /// It is something else than a binary module or component, or not a valid one.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let kind = kind(bytes).map_err(|what| anyhow!("{name} {what}"))?;
        let invalid = |error: wasmparser::Error| {
            let (why, at) = (error.message(), error.offset());
            if is_cut_off(bytes) {
                return anyhow!("{name} is cut off after {} bytes; build or copy it again", bytes.len());
            }
            anyhow!(
                "{name} is not a valid {}: {why}, at byte {at}; build it again with a current toolchain",
                kind.noun()
            )
        };
        let needed = features::needed(bytes, kind).map_err(invalid)?;
        let mut binary = Self {
            kind,
            size: bytes.len() as u64,
            imports: Vec::new(),
            exports: Vec::new(),
            memories: Vec::new(),
            features: features::names(needed),
            needed,
            metadata: Metadata::default(),
        };
        binary.collect(bytes).map_err(invalid)?;
        Ok(binary)
    }

    /// The versioned names of a component's imports, in order.
    pub(crate) fn import_names(&self) -> Vec<String> {
        self.imports.iter().map(|item| item.name.clone()).collect()
    }

    /// The versioned names of a component's exports, in order.
    pub(crate) fn export_names(&self) -> Vec<String> {
        self.exports.iter().map(|item| item.name.clone()).collect()
    }

    fn collect(&mut self, bytes: &[u8]) -> Result<(), wasmparser::Error> {
        let mut validator = Validator::new_with_features(self.needed);
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            let known = validator.payload(&payload)?;
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::MemorySection(section) => {
                    for memory in section {
                        self.memories.push(memory?.into());
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import?;
                        let ty = type_of_import(import.ty).to_owned();
                        self.imports.push(Item { module: None, name: import.name.full_name().into_owned(), ty });
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export?;
                        let ty = type_of_export(export.kind).to_owned();
                        self.exports.push(Item { module: None, name: export.name.full_name().into_owned(), ty });
                    }
                }
                Payload::CustomSection(section) => self.metadata.add(&section, depth == 0),
                Payload::End(_) => {
                    if depth == 0
                        && let ValidPayload::End(types) = known
                    {
                        self.items_of_module(&types);
                    }
                    depth = depth.saturating_sub(1);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A module's imports and exports; a component has neither in this sense.
    fn items_of_module(&mut self, types: &Types) {
        let types = types.as_ref();
        for (module, name, entity) in types.core_imports().into_iter().flatten() {
            let ty = type_of_entity(types, entity);
            self.imports.push(Item { module: Some(module.to_owned()), name: name.to_owned(), ty });
        }
        for (name, entity) in types.core_exports().into_iter().flatten() {
            let ty = type_of_entity(types, entity);
            self.exports.push(Item { module: None, name: name.to_owned(), ty });
        }
    }
}

/// Tells a module from a component, or what the bytes are instead and what to do: a clause that continues "NAME …".
///
/// Where the sentence for an image's entrypoint tells how to run or mend the image, there is none yet: another is said.
fn kind(bytes: &[u8]) -> Result<Kind, &'static str> {
    let head = &bytes[..bytes.len().min(16)];
    sniff(head).map_err(|what| match head.trim_ascii_start() {
        [] => "is an empty file; build it again",
        [b'(' | b';', ..] => "is WebAssembly text (.wat), not a binary; convert it with `wasm-tools parse`",
        [b'#', b'!', ..] => "is a script, not WebAssembly; give the .wasm file that it starts, or the interpreter's",
        [0x7f, b'E', b'L', b'F', ..] if !what.contains(".cwasm") => {
            "is a native program, not WebAssembly; compile it for wasm32-wasip1 or wasm32-wasip2"
        }
        _ => what,
    })
}

/// Whether the outermost sections go on behind the file's end.
fn is_cut_off(bytes: &[u8]) -> bool {
    let mut reader = BinaryReader::new(bytes, 0);
    let mut sections = || {
        reader.read_bytes(8)?;
        while !reader.eof() {
            reader.read_u8()?;
            reader.read_reader()?;
        }
        Ok::<_, wasmparser::Error>(())
    };
    sections().is_err_and(|error| error.message().starts_with("unexpected end"))
}

impl From<MemoryType> for Memory {
    fn from(memory: MemoryType) -> Self {
        let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(16)).unwrap_or(1 << 16);
        Self {
            initial: memory.initial.saturating_mul(page),
            maximum: memory.maximum.map(|pages| pages.saturating_mul(page)),
            shared: memory.shared,
            memory64: memory.memory64,
        }
    }
}

fn type_of_entity(types: TypesRef<'_>, entity: EntityType) -> String {
    match entity {
        EntityType::Func(id) | EntityType::FuncExact(id) => match &types[id].composite_type.inner {
            CompositeInnerType::Func(function) => {
                let list = |values: &[wasmparser::ValType]| {
                    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                };
                match function.results() {
                    [] => format!("func ({})", list(function.params())),
                    [result] => format!("func ({}) -> {result}", list(function.params())),
                    results => format!("func ({}) -> ({})", list(function.params()), list(results)),
                }
            }
            _ => "func".to_owned(),
        },
        EntityType::Table(table) => format!("table {}", table.element_type),
        EntityType::Memory(memory) => {
            format!("memory{}{}", if memory.memory64 { " i64" } else { "" }, if memory.shared { " shared" } else { "" })
        }
        EntityType::Global(global) => {
            format!("global {}{}", if global.mutable { "mut " } else { "" }, global.content_type)
        }
        EntityType::Tag(_) => "tag".to_owned(),
    }
}

fn type_of_import(ty: ComponentTypeRef) -> &'static str {
    match ty {
        ComponentTypeRef::Module(_) => "module",
        ComponentTypeRef::Func(_) => "func",
        ComponentTypeRef::Value(_) => "value",
        ComponentTypeRef::Type(_) => "type",
        ComponentTypeRef::Instance(_) => "instance",
        ComponentTypeRef::Component(_) => "component",
    }
}

fn type_of_export(kind: ComponentExternalKind) -> &'static str {
    match kind {
        ComponentExternalKind::Module => "module",
        ComponentExternalKind::Func => "func",
        ComponentExternalKind::Value => "value",
        ComponentExternalKind::Type => "type",
        ComponentExternalKind::Instance => "instance",
        ComponentExternalKind::Component => "component",
    }
}

/// Reads a module for [`Binary::parse`], bounded by [`MAX_BYTES`]. `size` is what it will probably have.
///
/// # Errors
/// It can't be read, or is larger.
pub(crate) fn read(name: &str, source: impl Read, size: u64) -> Result<Vec<u8>> {
    // With room for the end of file to be found in; what is said of the size is not believed without bound.
    let mut bytes = Vec::with_capacity(usize::try_from(size.min(MAX_BYTES)).unwrap_or(0).saturating_add(1));
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| anyhow!("read {name}: {source}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{name} is larger than {MAX_BYTES} bytes, which no engine loads");
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Binary {
        Binary::parse("test", &wat::parse_str(text).unwrap()).unwrap()
    }

    fn item(module: Option<&str>, name: &str, ty: &str) -> Item {
        Item { module: module.map(str::to_owned), name: name.to_owned(), ty: ty.to_owned() }
    }

    #[test]
    fn tells_a_modules_imports_exports_and_memories() {
        let binary = parse(
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32) (result i32)))
                (import "env" "memory" (memory 1)) (import "env" "g" (global (mut i64)))
                (memory (export "memory") 2 3) (func (export "_start")) (table (export "t") 1 funcref))"#,
        );
        assert_eq!(binary.kind, Kind::Module);
        assert_eq!(
            binary.imports,
            [
                item(Some("wasi_snapshot_preview1"), "fd_write", "func (i32, i32) -> i32"),
                item(Some("env"), "memory", "memory"),
                item(Some("env"), "g", "global mut i64"),
            ]
        );
        assert_eq!(
            binary.exports,
            [item(None, "memory", "memory"), item(None, "_start", "func ()"), item(None, "t", "table funcref"),]
        );
        assert_eq!(
            binary.memories,
            [Memory { initial: 2 << 16, maximum: Some(3 << 16), shared: false, memory64: false }]
        );
    }

    #[test]
    fn tells_a_components_imports_and_exports_but_not_its_parts() {
        let binary = parse(
            r#"(component
                (import "wasi:cli/environment@0.2.3" (instance $e (export "f" (func))))
                (core module $m (memory 1) (func (export "inner")))
                (component (import "wasi:inner/one@0.2.0" (instance)))
                (export "wasi:cli/run@0.2.3" (instance $e)))"#,
        );
        assert_eq!(binary.kind, Kind::Component);
        assert_eq!(binary.import_names(), ["wasi:cli/environment@0.2.3"]);
        assert_eq!(binary.export_names(), ["wasi:cli/run@0.2.3"]);
        assert_eq!(binary.memories.len(), 1);
    }

    #[test]
    fn says_what_else_a_file_is() {
        let module =
            wat::parse_str("(module (func (export \"f\") nop) (memory 1) (data (i32.const 0) \"text\"))").unwrap();
        let broken = wat::parse_str("(module (func (result i32)))").unwrap();
        let table: &[(&[u8], &str)] = &[
            (b"", "empty"),
            (b"(module)", "wasm-tools parse"),
            (b"\n  ;; text", "wasm-tools parse"),
            (b"\x7fELF\x02\x01\x01\xc8", ".cwasm"),
            (b"\x7fELF\x02\x01\x01\x00", "wasm32-wasip1"),
            (b"#!/bin/sh\n", "script"),
            (b"\0asm", "truncated"),
            (&module[..module.len() - 2], "cut off"),
            (&broken, "not a valid core module"),
            (b"\0asm\x0d\0\x01\0\xff\x00", "not a valid component"),
        ];
        for (bytes, expected) in table {
            let error = Binary::parse("x.wasm", bytes).unwrap_err().to_string();
            assert!(error.starts_with("x.wasm ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_panics() {
        let sound = wat::parse_str(
            r#"(component (import "a:b/c@0.1.0" (instance)) (core module (memory 1) (func (export "f") (result i32) i32.const 1)))"#,
        )
        .unwrap();
        for index in 0..sound.len() {
            let _ = Binary::parse("prefix", &sound[..index]);
            for bit in 0..8 {
                let mut flipped = sound.clone();
                flipped[index] ^= 1 << bit;
                let _ = Binary::parse("flipped", &flipped);
            }
        }
    }
}
