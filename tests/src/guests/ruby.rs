//! Ruby with its standard library, as a command: over 30 MB in one module.
//!
//! The Ruby project publishes it on npm as a library for hosts in JavaScript: with `_initialize` in place of `_start`,
//! and imports of JavaScript's objects. What such a host would do for `ruby -e CODE` and `ruby FILE` goes into the
//! module here, as a `_start`; Ruby itself stays as it was published.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use walrus::{
    ConstExpr, DataKind, FunctionBuilder, FunctionId, ImportKind, LocalId, Module, ValType,
    ir::{BinaryOp, LoadKind, MemArg, StoreKind, Value},
};

use super::run;
use crate::{
    cache::{self, hex_digest},
    prerequisites::{self, Tool},
};

const PACKAGE: &str = "@ruby/3.4-wasm-wasi@2.10.1";
/// Of the archive that npm downloads.
const SHA256: &str = "2e709bd9eddefe1c5d63e9fc0391a35cce4754e936d8a2f24b8582f6d5c2ea88";
const LIBRARY: &str = "package/dist/ruby+stdlib.wasm";

const WASI: &str = "wasi_snapshot_preview1";

const INIT: &str = "ruby-init: func(args: list<string>) -> ()";
const EVAL: &str = "rb-eval-string-protect: func(str: string) -> tuple<handle<rb-abi-value>, s32>";

/// What precedes a user's arguments. Ruby wants C strings, with a length that counts the NUL.
const OPTIONS: [&str; 5] = ["ruby\0", "-EUTF-8\0", "-e\0", "_=0\0", "--\0"];

/// `exit!`, for the exit code; it leaves out what `exit` does: flush.
const MAIN: &str = "
    status = 0
    begin
      first = ARGV.shift or raise 'give -e CODE or a FILE'
      first == '-e' ? eval(ARGV.shift, TOPLEVEL_BINDING, '-e') : load(first)
    rescue SystemExit => exit
      status = exit.status
    rescue Exception => error
      $stderr.puts(error.full_message(highlight: false))
      status = 1
    end
    $stdout.flush
    exit!(status)
\0";

/// The module, downloaded when it isn't there yet.
pub(super) fn path() -> Result<PathBuf> {
    let recipe = [PACKAGE.as_bytes(), SHA256.as_bytes(), include_bytes!("ruby.rs")].concat();
    Ok(cache::entry("ruby", &recipe, build)?.join("ruby.wasm"))
}

fn build(folder: &Path) -> Result<()> {
    prerequisites::need(&[Tool::program("npm", "npm")])?;
    eprintln!("testbed: downloading Ruby for WASI from npm ({PACKAGE}, 30 MB, once)");
    let packed = run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(folder))?;
    let archive = folder.join(packed.trim());
    let digest = hex_digest(&fs::read(&archive).with_context(|| format!("read {}", archive.display()))?);
    ensure!(digest == SHA256, "{PACKAGE} from npm has the digest {digest}, not {SHA256}");
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(folder).arg(LIBRARY))?;
    let library = fs::read(folder.join(LIBRARY)).with_context(|| format!("read {LIBRARY}"))?;
    fs::write(folder.join("ruby.wasm"), command_of(&library)?).context("write ruby.wasm")?;
    fs::remove_dir_all(folder.join("package")).context("remove what was unpacked")?;
    fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))
}

/// The module with a `_start`, and without imports but WASI's.
fn command_of(library: &[u8]) -> Result<Vec<u8>> {
    let mut module = Module::from_buffer(library).context("parse Ruby")?;
    replace_foreign_imports(&mut module)?;
    let start = add_start(&mut module)?;
    module.exports.remove("_initialize").context("remove _initialize")?;
    module.exports.add("_start", start);
    Ok(module.emit_wasm())
}

/// Handles of Ruby's objects are their addresses; there is no JavaScript.
fn replace_foreign_imports(module: &mut Module) -> Result<()> {
    let foreign = module.imports.iter().filter(|import| import.module != WASI);
    let functions = foreign.filter_map(|import| match import.kind {
        ImportKind::Function(function) => Some((function, import.name.ends_with("_rb-abi-value"))),
        _ => None,
    });
    for (function, is_handle) in functions.collect::<Vec<_>>() {
        module.replace_imported_func(function, |(body, arguments)| {
            if is_handle {
                body.local_get(arguments[0]);
            } else {
                body.unreachable();
            }
        })?;
    }
    Ok(())
}

/// Where `_start` has its strings and lists: in pages beyond those that Ruby's allocator counts on.
struct Places {
    options: u32,
    main: u32,
    /// Of (address, length) of each argument, for Ruby.
    list: u32,
    /// What WASI fills: the sizes, addresses and texts of the arguments; 64 KiB of them.
    sizes: u32,
    addresses: u32,
    texts: u32,
}

impl Places {
    const PAGE: u32 = 64 * 1024;
    const PAGES: u32 = 4;

    fn at(base: u32) -> Places {
        let page = |number| base + number * Places::PAGE;
        Places {
            options: base,
            main: base + 1024,
            sizes: base + 32 * 1024,
            list: page(1),
            addresses: page(2),
            texts: page(3),
        }
    }
}

/// Gives Ruby the arguments, then has it run [`MAIN`].
fn add_start(module: &mut Module) -> Result<FunctionId> {
    let memory = module.memories.iter_mut().next().context("find Ruby's memory")?;
    let base = u32::try_from(memory.initial).context("size of Ruby's memory")? * Places::PAGE;
    memory.initial += u64::from(Places::PAGES);
    let memory = memory.id();
    let places = Places::at(base);

    let (mut options, mut list) = (Vec::new(), Vec::new());
    for option in OPTIONS {
        list.extend((places.options + length(&options)).to_le_bytes());
        list.extend(length(option.as_bytes()).to_le_bytes());
        options.extend(option.bytes());
    }
    let first_of_users = places.list + length(&list);
    for (place, bytes) in [(places.options, options), (places.list, list), (places.main, MAIN.into())] {
        let offset = ConstExpr::Value(Value::I32(place.cast_signed()));
        module.data.add(DataKind::Active { memory, offset }, bytes);
    }

    let [initialize, ruby_init, eval] =
        ["_initialize", INIT, EVAL].map(|name| module.exports.get_func(name).with_context(|| format!("find {name}")));
    let two_addresses = module.types.add(&[ValType::I32, ValType::I32], &[ValType::I32]);
    let [sizes_get, args_get] =
        ["args_sizes_get", "args_get"].map(|name| module.add_import_func(WASI, name, two_addresses).0);
    let [index, address, item] = [(); 3].map(|()| module.locals.add(ValType::I32));
    let (load, store) = (LoadKind::I32 { atomic: false }, StoreKind::I32 { atomic: false });
    let aligned = MemArg { align: 4, offset: 0 };

    let mut start = FunctionBuilder::new(&mut module.types, &[], &[]);
    let mut body = start.func_body();
    let place = u32::cast_signed;
    body.call(initialize?);
    body.i32_const(place(places.sizes)).i32_const(place(places.sizes + 4)).call(sizes_get).drop();
    body.i32_const(place(places.addresses)).i32_const(place(places.texts)).call(args_get).drop();
    // The first is the program's name, which Ruby has been given.
    let first: [(LocalId, u32); 3] = [(index, 1), (address, places.addresses + 4), (item, first_of_users)];
    for (local, value) in first {
        body.i32_const(place(value)).local_set(local);
    }
    body.block(None, |block| {
        let done = block.id();
        block.loop_(None, |each| {
            let next = each.id();
            each.local_get(index).i32_const(place(places.sizes)).load(memory, load, aligned);
            each.binop(BinaryOp::I32GeU).br_if(done);
            // The length stays 0: Ruby looks for the NUL.
            each.local_get(item).local_get(address).load(memory, load, aligned).store(memory, store, aligned);
            for (local, step) in [(index, 1), (address, 4), (item, 8)] {
                each.local_get(local).i32_const(step).binop(BinaryOp::I32Add).local_set(local);
            }
            each.br(next);
        });
    });
    // As many as there are options, and the user's.
    body.i32_const(place(places.list));
    body.local_get(index).i32_const(place(length(&OPTIONS)) - 1).binop(BinaryOp::I32Add).call(ruby_init?);
    body.i32_const(place(places.main)).i32_const(place(length(MAIN.as_bytes()))).call(eval?).drop();
    Ok(start.finish(Vec::new(), &mut module.funcs))
}

/// Of what is in this file: far below 4 GiB.
fn length<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a few items")
}
