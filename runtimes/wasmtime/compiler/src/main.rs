fn main() { let e = lighter_wasmtime_engine::engine().unwrap(); let b = std::fs::read("/dev/stdin").unwrap(); let o = e.precompile_module(&b).unwrap(); std::fs::write("/dev/stdout", o).unwrap(); }
